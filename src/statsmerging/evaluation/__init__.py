"""Scoring: accuracy per task, and agreement with the teachers for choosing hyper-parameters."""
