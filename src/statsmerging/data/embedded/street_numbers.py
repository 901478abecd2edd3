"""The ``street_numbers`` task: the middle digit of a house number."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .appearance import (
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
    Jitter,
    blank,
    glyph,
    paste_centred,
    place_all,
    random_poses,
)
from .task import EmbeddedTask, Images, Labels, rendered_task

NEIGHBOUR_CHANCE = 0.7
JITTER = Jitter(rotation=6, scale=(0.9, 1.1), shift=1.0, shear=0.1)


def build_street_numbers() -> EmbeddedTask:
    """House-number digits 0 to 9 in sans-serif fonts, cropped out of a longer number.

    Neighbouring digits intrude from the sides; colours, backgrounds, pose, blur and noise vary.
    Source: rendered with the fonts that come with matplotlib.
    """
    return rendered_task("street_numbers", tuple("0123456789"), _render)


def _render(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    numbers = [_draw_number(str(digit), rng) for digit in labels]
    masks = place_all(numbers, random_poses(rng, count, JITTER))
    walls = backgrounds(rng, count)
    painted = paint(walls, contrasting_colours(rng, walls.mean((1, 2))), masks)
    softened = soften(painted, rng, (0.0, 0.8))
    lit = relight(softened, rng, brightness=(0.7, 1.2), contrast=(0.7, 1.1))
    return to_bytes(add_noise(lit, rng, (0.0, 0.04)))


def _draw_number(digit: str, rng: np.random.Generator) -> Image.Image:
    """A canvas with the digit at its centre and, often, others to its left and right."""
    canvas = blank(width=2 * CANVAS)
    font_name = SANS_FONTS[rng.integers(len(SANS_FONTS))]
    middle = glyph(digit, font_name)
    paste_centred(canvas, middle)
    for side in (-1, 1):
        if rng.random() < NEIGHBOUR_CHANCE:
            neighbour = glyph(str(rng.integers(10)), font_name)
            gap = rng.uniform(2, 9)
            paste_centred(canvas, neighbour, side * ((middle.width + neighbour.width) / 2 + gap))
    return canvas
