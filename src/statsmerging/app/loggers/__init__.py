"""Loggers of a run: one run per job in each of them, on Lightning's own loggers."""
