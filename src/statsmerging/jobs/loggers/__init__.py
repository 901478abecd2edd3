"""Where a run's curves and results are sent besides its directory: one file per ``logger=…``."""
