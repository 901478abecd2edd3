"""Tables: what they hold (accuracy, sweep), and how they are written (one file a format)."""
