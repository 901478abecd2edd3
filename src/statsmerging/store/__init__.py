"""Files on disk: cache, atomic writes, hashes, locks, and files received from others."""
