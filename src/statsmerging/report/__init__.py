"""What a run looks like to a reader: tables, from records alone."""
