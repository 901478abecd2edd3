"""From unlabeled images to coefficients: teachers, labels, DataModule, LightningModule, fit."""
