"""The ``digits`` task: scikit-learn's handwritten digits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .task import (
    IMAGE_SIZE,
    EmbeddedTask,
    LabeledImages,
    generator,
    stratified_split,
    without_duplicates,
)

SIZES = {"train": 1000, "validation": 300, "test": 497}
BRIGHTEST = 16


def build_digits() -> EmbeddedTask:
    """Handwritten digits 0 to 9: 8x8 grey images enlarged to 32x32, 1,000 / 300 / 497 of them.

    Source: the test set of the UCI "Optical Recognition of Handwritten Digits" data, as shipped
    with scikit-learn (``sklearn.datasets.load_digits``).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    examples = LabeledImages(
        np.stack([_enlarge(image) for image in bunch.images]), bunch.target.astype(np.int64)
    )
    splits = stratified_split(examples, SIZES, generator("digits"))
    return EmbeddedTask("digits", tuple("0123456789"), without_duplicates(splits))


def _enlarge(image: np.ndarray) -> np.ndarray:
    grey = Image.fromarray((image * (255 / BRIGHTEST)).astype(np.uint8))
    enlarged = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(enlarged.convert("RGB"))
