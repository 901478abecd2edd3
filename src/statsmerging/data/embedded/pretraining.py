"""Labelled images for pre-training a backbone: letters, silhouettes and textured noise."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase

import numpy as np
from PIL import ImageDraw

from .appearance import (
    Floats,
    add_noise,
    backgrounds,
    contrasting_colours,
    paint,
    relight,
    soften,
    to_bytes,
)
from .drawing import (
    CANVAS,
    SANS_FONTS,
    SERIF_FONTS,
    Jitter,
    blank,
    glyph,
    paste_centred,
    place_all,
    random_poses,
)
from .task import IMAGE_SIZE, LabeledImages, balanced_labels, generator

# Silhouettes

# Corner coordinates are in units of half the silhouette's size, about its centre.
Outline = list[tuple[float, float]]
RADIUS = 0.42 * CANVAS


def _arc(
    start: float, end: float, radius: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)
) -> Outline:
    """Points along an arc between two angles in degrees, clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, end, 40))
    x, y = centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _cross() -> Outline:
    arm, end = 0.3, 0.95
    corner = [(arm, -arm), (end, -arm), (end, arm)]
    turns = [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)]
    return [(a * x + b * y, c * x + d * y) for a, b, c, d in turns for x, y in corner]


def _star() -> Outline:
    angles = np.deg2rad(36 * np.arange(10) - 90)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    x, y = radii * np.cos(angles), radii * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _heart() -> Outline:
    t = np.linspace(0, 2 * np.pi, 60)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return list(zip(x.tolist(), y.tolist(), strict=True))


OUTLINES: dict[str, Outline] = {
    "disc": _arc(0, 360),
    "half_disc": _arc(0, 180, centre=(0, -0.4)),
    "ring": _arc(0, 360) + _arc(360, 0, radius=0.55),
    "crescent": _arc(60, 300) + _arc(267, 93, radius=0.87, centre=(0.55, 0)),
    "ellipse": [(x, 0.45 * y) for x, y in _arc(0, 360)],
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -1), (0.87, 0.5), (-0.87, 0.5)],
    "hourglass": [(-0.8, -0.9), (0.8, -0.9), (0.15, 0), (0.8, 0.9), (-0.8, 0.9), (-0.15, 0)],
    "cross": _cross(),
    "arrow": [(1, 0), (0.2, 0.8), (0.2, 0.3), (-1, 0.3), (-1, -0.3), (0.2, -0.3), (0.2, -0.8)],
    "star": _star(),
    "heart": _heart(),
}


# The classes and their images

FONTS = SANS_FONTS + SERIF_FONTS
LETTERS = tuple(ascii_uppercase)
SILHOUETTES = tuple(OUTLINES)
ORIENTATIONS = (0, 45, 90, 135)
FREQUENCIES = {"coarse": 0.09, "fine": 0.2}  # in cycles per pixel
NOISES: dict[str, tuple[str, int | None]] = {
    f"{scale}_noise" if angle is None else f"{scale}_noise_{angle}": (scale, angle)
    for scale in FREQUENCIES
    for angle in (None, *ORIENTATIONS)
}
CLASSES = LETTERS + SILHOUETTES + tuple(NOISES)

LETTER_JITTER = Jitter(rotation=12, scale=(0.8, 1.1), shift=1.5, shear=0.15)
SILHOUETTE_JITTER = Jitter(rotation=30, scale=(0.6, 1.1), shift=2, shear=0.15)

# Draws one mask (N, 32, 32) for each of the given class names.
MaskMaker = Callable[[list[str], np.random.Generator], Floats]


def pretraining_images(count: int = 6000) -> tuple[LabeledImages, tuple[str, ...]]:
    """Labelled images of 48 classes, with no image in common with any task.

    The classes are the 26 capital letters in the fonts that come with matplotlib, 12 geometric
    silhouettes, and 10 kinds of band-pass noise; colours, backgrounds, poses, light, blur and
    noise vary.

    Args:
        count: number of images, spread evenly over the classes.

    Returns:
        The images (``uint8``, ``(count, 32, 32, 3)``) with their labels, and the class names.
    """
    rng = generator("pretraining")
    labels = balanced_labels(count, len(CLASSES), rng)
    names = np.array(CLASSES)[labels]
    masks = np.empty((count, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    for group, make_masks in MASK_MAKERS.items():
        rows = np.flatnonzero(np.isin(names, group))
        masks[rows] = make_masks(names[rows].tolist(), rng)
    grounds = backgrounds(rng, count)
    painted = paint(grounds, contrasting_colours(rng, grounds.mean((1, 2))), masks)
    lit = relight(painted, rng, brightness=(0.6, 1.2), contrast=(0.7, 1.1))
    images = to_bytes(add_noise(soften(lit, rng, (0.0, 0.8)), rng, (0.0, 0.05)))
    return LabeledImages(images, labels), CLASSES


def _letters(names: list[str], rng: np.random.Generator) -> Floats:
    canvases = []
    for letter in names:
        canvases.append(blank())
        paste_centred(canvases[-1], glyph(letter, FONTS[rng.integers(len(FONTS))]))
    return place_all(canvases, random_poses(rng, len(names), LETTER_JITTER))


def _silhouettes(names: list[str], rng: np.random.Generator) -> Floats:
    canvases = {}
    for name, outline in OUTLINES.items():
        canvases[name] = blank()
        corners = [(CANVAS / 2 + RADIUS * x, CANVAS / 2 + RADIUS * y) for x, y in outline]
        ImageDraw.Draw(canvases[name]).polygon(corners, fill=255)
    poses = random_poses(rng, len(names), SILHOUETTE_JITTER)
    return place_all([canvases[name] for name in names], poses)


def _noises(names: list[str], rng: np.random.Generator) -> Floats:
    """White noise, filtered around a frequency and, if the class has one, an orientation."""
    filters = {name: _band_filter(*kind) for name, kind in NOISES.items()}
    white = rng.standard_normal((len(names), IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    spectrum = np.fft.fft2(white) * np.stack([filters[name] for name in names])
    waves = np.fft.ifft2(spectrum).real
    masks: Floats = np.clip(0.5 + 0.35 * waves / waves.std((1, 2), keepdims=True), 0, 1)
    return masks


def _band_filter(scale: str, angle: int | None) -> Floats:
    frequency = np.fft.fftfreq(IMAGE_SIZE)
    x, y = np.meshgrid(frequency, frequency)
    centre = FREQUENCIES[scale]
    # A Gaussian ring around the frequency, cut to a sector around the orientation.
    band: Floats = np.exp(-(((np.hypot(x, y) - centre) / (0.35 * centre)) ** 2))
    if angle is not None:
        # Angles are doubled, because a wave and its reverse have the same orientation.
        deviation = np.angle(np.exp(2j * (np.arctan2(y, x) - np.deg2rad(angle)))) / 2
        band *= np.exp(-((deviation / np.deg2rad(15)) ** 2))
    return band


MASK_MAKERS: dict[tuple[str, ...], MaskMaker] = {
    LETTERS: _letters,
    SILHOUETTES: _silhouettes,
    tuple(NOISES): _noises,
}
