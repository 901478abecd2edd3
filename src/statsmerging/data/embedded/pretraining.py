"""Labelled images for pre-training a backbone: letters, silhouettes and textured noise."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase

import numpy as np
from PIL import Image

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
    SANS_FONTS,
    SERIF_FONTS,
    Jitter,
    blank,
    glyph,
    paste_centred,
    place_all,
    random_poses,
)
from .silhouettes import OUTLINES, draw_silhouette
from .task import IMAGE_SIZE, LabeledImages, balanced_labels, generator

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
    """Labelled images of 48 classes that share no picture with any task.

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
    canvases = [_draw_letter(name, FONTS[rng.integers(len(FONTS))]) for name in names]
    return place_all(canvases, random_poses(rng, len(names), LETTER_JITTER))


def _draw_letter(letter: str, font_name: str) -> Image.Image:
    canvas = blank()
    paste_centred(canvas, glyph(letter, font_name))
    return canvas


def _silhouettes(names: list[str], rng: np.random.Generator) -> Floats:
    canvases = {name: draw_silhouette(name) for name in SILHOUETTES}
    poses = random_poses(rng, len(names), SILHOUETTE_JITTER)
    return place_all([canvases[name] for name in names], poses)


def _noises(names: list[str], rng: np.random.Generator) -> Floats:
    """White noise through a filter round a frequency and, where there is one, an orientation."""
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
    band: Floats = np.exp(-(((np.hypot(x, y) - centre) / (0.35 * centre)) ** 2))
    if angle is not None:
        # Twice the angle, because a wave and its reverse are the same.
        deviation = np.angle(np.exp(2j * (np.arctan2(y, x) - np.deg2rad(angle)))) / 2
        band *= np.exp(-((deviation / np.deg2rad(15)) ** 2))
    return band


MASK_MAKERS: dict[tuple[str, ...], MaskMaker] = {
    LETTERS: _letters,
    SILHOUETTES: _silhouettes,
    tuple(NOISES): _noises,
}
