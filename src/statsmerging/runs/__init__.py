"""The files of a run on disk: directory, manifest, results, tables by layer, comparison."""
