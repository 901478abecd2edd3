"""Images: suites of tasks, sources, preprocessing, corruptions, the cache, checks of splits."""
