"""A run on disk: its results as typed objects, and finished runs, checked on reading."""
