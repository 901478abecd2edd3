"""Spatter: drops of water or splashes of mud on the lens."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, distance_transform_edt, gaussian_filter, uniform_filter
from skimage.feature import canny

from statsmerging.data.corruptions.pixels import image_of, unit_values

#: Pale turquoise and mud brown, RGB between 0 and 1.
WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255

#: Mud covers a pixel from this much of it on.
OPAQUE = 0.8

#: A drop is as high as the distance to its edge, in pixels, up to this.
HEIGHT = 20

#: Light from one corner: raises one side of a drop and sinks the other.
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def spatter(
    image: Image.Image,
    generator: np.random.Generator,
    mean: float,
    deviation: float,
    smoothing: float,
    threshold: float,
    strength: float,
    mud: float,
) -> Image.Image:
    """Add water, or cover with mud, where smoothed noise is above a threshold.

    The steps and constants are those of the public scripts, which use OpenCV's operators; the
    operators here are those of SciPy and scikit-image. Their Canny filter finds other edges than
    OpenCV's, so drops have other outlines: an image correlates with the original's, and is not it.

    Args:
        mean: of the noise.
        deviation: of the noise, before it is smoothed.
        smoothing: standard deviation of the Gaussian that smooths the noise, in pixels.
        threshold: above it there is liquid.
        strength: of water, the light that the brightest drop adds; of mud, the standard deviation
            of the Gaussian that smooths its outline, in pixels.
        mud: 1 for mud, 0 for water.
    """
    values = unit_values(image)
    noise = generator.normal(mean, deviation, values.shape[:2])
    liquid = gaussian_filter(noise, smoothing, mode="nearest")
    liquid[liquid < threshold] = 0
    if mud:
        cover = _mud_cover(liquid > threshold, strength)[:, :, np.newaxis]
        return image_of(values * (1 - cover) + MUD * cover)
    return image_of(values + WATER * _water_light(liquid, strength)[:, :, np.newaxis])


def _mud_cover(wet: np.ndarray, smoothing: float) -> np.ndarray:
    """How much of each pixel mud covers, H × W: nothing, or at least ``OPAQUE``."""
    cover: np.ndarray = gaussian_filter(wet.astype(float), smoothing, mode="nearest")
    cover[cover < OPAQUE] = 0
    return cover


def _water_light(liquid: np.ndarray, strength: float) -> np.ndarray:
    """The light that water adds to each pixel, H × W: more inside a drop, and on its lit side."""
    liquid = np.floor(255 * liquid)
    edges = canny(liquid, sigma=0, low_threshold=50, high_threshold=150)
    if not edges.any():  # no drop at all, or nothing but water
        return np.zeros_like(liquid)
    height = np.minimum(distance_transform_edt(~edges), HEIGHT)
    height = _equalised(np.floor(uniform_filter(height, 3, mode="mirror")))
    lit = np.clip(correlate(height, EMBOSS, mode="mirror"), 0, 255)
    light: np.ndarray = liquid * uniform_filter(lit, 3, mode="mirror")
    if light.any():
        light *= strength / light.max()
    return light


def _equalised(levels: np.ndarray) -> np.ndarray:
    """Histogram equalisation of whole numbers: the least becomes 0, the greatest 255."""
    _, places, counts = np.unique(levels, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts[0]
    equalised: np.ndarray = 255 * ranks / max(ranks[-1], 1)
    return equalised[places].reshape(levels.shape)
