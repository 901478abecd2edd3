"""The reproducibility record: errors, hashes, atomic files, the cache, manifest and results."""
