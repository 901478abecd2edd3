"""Noise of single values, each channel of each pixel by itself."""

from __future__ import annotations

import numpy as np
from PIL import Image

from statsmerging.data.corruptions.pixels import image_of, unit_values


def gaussian_noise(
    image: Image.Image, generator: np.random.Generator, deviation: float
) -> Image.Image:
    """Add normal noise.

    Args:
        deviation: standard deviation, of values between 0 and 1.
    """
    values = unit_values(image)
    return image_of(values + generator.normal(scale=deviation, size=values.shape))


def impulse_noise(image: Image.Image, generator: np.random.Generator, share: float) -> Image.Image:
    """Set values to black or white, either with equal chance ("salt and pepper").

    Args:
        share: of the values that are hit.
    """
    values = unit_values(image)
    hit = generator.random(values.shape) < share
    extremes = generator.integers(0, 2, values.shape)
    return image_of(np.where(hit, extremes, values))
