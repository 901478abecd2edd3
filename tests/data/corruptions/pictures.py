"""Images on which the corruptions are tested."""

from __future__ import annotations

import numpy as np
from PIL import Image
from skimage import data


def photographs(side: int) -> list[Image.Image]:
    """Three colour photographs, side × side pixels."""
    pictures = (data.astronaut(), data.chelsea(), data.coffee())
    return [Image.fromarray(picture).resize((side, side)) for picture in pictures]


def plain(value: int, side: int = 32) -> Image.Image:
    """A grey image of one value."""
    return Image.new("RGB", (side, side), (value, value, value))


def values(image: Image.Image) -> np.ndarray:
    """H × W × 3, float64, between 0 and 255."""
    return np.asarray(image.convert("RGB")).astype(float)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
