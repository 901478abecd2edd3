"""Foreign checkpoints: files and tensor names of other projects, read and written."""
