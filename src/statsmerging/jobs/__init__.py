"""The jobs: one file each, with one function of the same name that takes a run."""
