"""Colour, light, blur and noise for batches of small images.

All functions work on ``float32`` batches of shape ``(N, 32, 32, 3)`` with values in 0..1, with one
independent random draw per image. Products are summed element by element, not by BLAS, whose
rounding depends on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .task import IMAGE_SIZE, Images

Floats = NDArray[np.floating]
Range = tuple[float, float]

LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# Rows: luma, and the two chroma axes of the YIQ colour space, where hue is a plane angle.
RGB_TO_YIQ = np.array(
    [LUMINANCE, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=np.float32
)
YIQ_TO_RGB = np.linalg.inv(RGB_TO_YIQ).astype(np.float32)


def uniform(rng: np.random.Generator, bounds: Range, *shape: int) -> Floats:
    """Uniform draws from ``bounds`` as ``float32``."""
    return rng.uniform(*bounds, size=shape).astype(np.float32)


def pixel_grid() -> tuple[Floats, Floats]:
    """The x and y coordinates of all pixels, centred on the image, in pixels."""
    axis = np.arange(IMAGE_SIZE, dtype=np.float32) - (IMAGE_SIZE - 1) / 2
    x, y = np.meshgrid(axis, axis)
    return x, y


def random_colours(rng: np.random.Generator, count: int) -> Floats:
    """``count`` colours, uniform in the RGB cube, of shape ``(count, 3)``."""
    return uniform(rng, (0.0, 1.0), count, 3)


def contrasting_colours(rng: np.random.Generator, against: Floats, gap: float = 0.4) -> Floats:
    """A random colour for each given one; their luminances differ by ``gap`` or more.

    Args:
        rng: source of the colours.
        against: colours to stand out from, of shape ``(N, 3)``.
        gap: least luminance difference; if none of 16 draws reaches it, the farthest is taken.
    """
    candidates = uniform(rng, (0.0, 1.0), len(against), 16, 3)
    distance = np.abs(((candidates - against[:, None]) * LUMINANCE).sum(-1))
    far_enough = distance >= gap
    chosen = np.where(far_enough.any(1), far_enough.argmax(1), distance.argmax(1))
    colours: Floats = candidates[np.arange(len(against)), chosen]
    return colours


def smooth_noise(rng: np.random.Generator, count: int, knots: int, channels: int) -> Floats:
    """Noise in 0..1 that varies over ``32 / knots`` pixels; shape ``(count, 32, 32, channels)``."""
    values = uniform(rng, (0.0, 1.0), count, knots, knots, channels)
    # Bilinear interpolation between the knots, first across the columns, then down the rows.
    position = np.linspace(0, knots - 1, IMAGE_SIZE, dtype=np.float32)
    before = np.minimum(position.astype(np.int64), knots - 2)
    share = position - before.astype(np.float32)
    across, down = share[:, None], share[:, None, None]
    rows = (1 - across) * values[:, :, before] + across * values[:, :, before + 1]
    smooth: Floats = (1 - down) * rows[:, before] + down * rows[:, before + 1]
    return smooth


def backgrounds(rng: np.random.Generator, count: int, clutter: float = 0.25) -> Floats:
    """Two-colour gradients in random directions, partly covered by blurred clutter.

    Args:
        rng: source of colours and clutter.
        count: number of backgrounds.
        clutter: the largest share of clutter in a background, in 0..1.
    """
    x, y = pixel_grid()
    angle = uniform(rng, (0.0, 2 * np.pi), count, 1, 1)
    ramp = 0.5 + (x * np.cos(angle) + y * np.sin(angle)) / (IMAGE_SIZE * 2**0.5)
    start, end = random_colours(rng, count), random_colours(rng, count)
    gradient = start[:, None, None] + ramp[..., None] * (end - start)[:, None, None]
    share = uniform(rng, (0.0, clutter), count, 1, 1, 1)
    mixed: Floats = (1 - share) * gradient + share * smooth_noise(rng, count, 6, 3)
    return mixed


def paint(images: Floats, colours: Floats, masks: Floats) -> Floats:
    """Lay a colour (``(N, 3)``) over each image where its mask (``(N, 32, 32)``) is set."""
    return images + masks[..., None] * (colours[:, None, None] - images)


def soften(images: Floats, rng: np.random.Generator, strength: Range) -> Floats:
    """Blend each image with a blurred copy of itself, by a share drawn from ``strength``."""
    blurred = images
    for axis in (1, 2):
        for _ in range(2):
            blurred = _average_neighbours(blurred, axis)
    share = uniform(rng, strength, len(images), 1, 1, 1)
    return images + share * (blurred - images)


def _average_neighbours(images: Floats, axis: int) -> Floats:
    padding = [(0, 0)] * images.ndim
    padding[axis] = (1, 1)
    padded = np.moveaxis(np.pad(images, padding, mode="edge"), axis, 0)
    return np.moveaxis((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, 0, axis)


def relight(
    images: Floats, rng: np.random.Generator, *, brightness: Range, contrast: Range
) -> Floats:
    """Scale each image's contrast about its mean, and then its brightness."""
    mean = images.mean((1, 2, 3), keepdims=True)
    stretched = mean + uniform(rng, contrast, len(images), 1, 1, 1) * (images - mean)
    lit: Floats = stretched * uniform(rng, brightness, len(images), 1, 1, 1)
    return lit


def expose(images: Floats, rng: np.random.Generator, *, mean: Range, deviation: Range) -> Floats:
    """Give each image a mean and a standard deviation drawn from the given ranges."""
    centred = images - images.mean((1, 2, 3), keepdims=True)
    spread = centred.std((1, 2, 3), keepdims=True) + 1e-3
    target = uniform(rng, deviation, len(images), 1, 1, 1)
    exposed: Floats = centred * (target / spread) + uniform(rng, mean, len(images), 1, 1, 1)
    return exposed


def recolour(images: Floats, rng: np.random.Generator, *, hue: float, saturation: Range) -> Floats:
    """Turn each image's hue by up to ±``hue`` radians and scale its saturation."""
    angle = uniform(rng, (-hue, hue), len(images))
    scale = uniform(rng, saturation, len(images))
    # A scaled rotation of the chroma plane; the luma stays.
    turn = np.zeros((len(images), 3, 3), dtype=np.float32)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = scale * np.cos(angle)
    turn[:, 2, 1] = scale * np.sin(angle)
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrices = YIQ_TO_RGB @ turn @ RGB_TO_YIQ
    coloured: Floats = (matrices[:, None, None] * images[..., None, :]).sum(-1)
    return coloured


def add_noise(images: Floats, rng: np.random.Generator, level: Range) -> Floats:
    """Add white noise to each image, with a standard deviation drawn from ``level``."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return images + uniform(rng, level, len(images), 1, 1, 1) * noise


def to_bytes(images: Floats) -> Images:
    """Round to ``uint8``; values outside 0..1 are clipped."""
    levels: Images = np.clip(images * 255 + 0.5, 0, 255).astype(np.uint8)
    return levels
