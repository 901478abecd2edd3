"""StatsMerging: statistics-guided model merging (arXiv 2506.04567)."""

__version__ = "0.1.0"
