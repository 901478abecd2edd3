"""Images as numbers between 0 and 1, and back."""

from __future__ import annotations

import numpy as np
from PIL import Image


def unit_values(image: Image.Image) -> np.ndarray:
    """H × W × 3, float64, between 0 and 1."""
    return np.asarray(image.convert("RGB")) / 255


def image_of(values: np.ndarray) -> Image.Image:
    """The image of such values: clipped to [0, 1], rounded to 8 bits."""
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))
