"""Motion blur, as ImageMagick defines it."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import correlate

from statsmerging.data.corruptions.pixels import image_of, unit_values

#: The line of motion is at most so far from the horizontal, in degrees.
STEEPEST = 45


def motion_blur(
    image: Image.Image, generator: np.random.Generator, radius: float, deviation: float
) -> Image.Image:
    """Blur along a line, whose angle is uniform within ±45°; the image's edge goes on beyond it.

    Args:
        radius: half the length of the motion, in pixels.
        deviation: of the Gaussian that fades along it, in pixels.
    """
    kernel = motion_kernel(int(radius), deviation, generator.uniform(-STEEPEST, STEEPEST))
    return image_of(correlate(unit_values(image), kernel[:, :, np.newaxis], mode="nearest"))


def motion_kernel(radius: int, deviation: float, angle: float) -> np.ndarray:
    """Weights of the pixels around one pixel; they sum to 1.

    The motion starts at the pixel itself, takes 2·radius steps of one pixel, and fades as one half
    of a Gaussian. Every step falls on the pixel nearest to it.

    Args:
        angle: in degrees, from the horizontal to the right downward.

    Returns:
        (4·radius + 1) × (4·radius + 1), float64, the pixel itself in the middle.
    """
    reach = 2 * radius
    steps = np.arange(reach + 1)
    slope = np.deg2rad(angle)
    # A step that falls halfway between two pixels goes to the first of them, as in ImageMagick.
    rows = np.ceil(steps * np.sin(slope) - 0.5).astype(int)
    columns = np.ceil(steps * np.cos(slope) - 0.5).astype(int)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    np.add.at(kernel, (reach + rows, reach + columns), np.exp(-((steps / deviation) ** 2) / 2))
    kernel /= kernel.sum()
    return kernel
