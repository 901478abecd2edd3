"""What a run survives: `python -m tests.faults` disturbs real runs and prints the counts."""
