"""Images: suites of tasks, preprocessing, the image cache, split checks and the DataModule."""
