"""Jobs: one file each, a function of the config and the run directory."""
