"""From weights to numbers: scores, agreement with the teachers, evidence, warnings."""
