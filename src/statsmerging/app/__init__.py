"""The command itself: config, command line, sweeps, loggers, and the setup of a run."""
