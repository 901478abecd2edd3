"""Three tasks of the digits 0 to 9: handwritten, printed in a book, and on house walls."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .appearance import (
    add_noise,
    backgrounds,
    contrasting_colours,
    paint,
    relight,
    smooth_noise,
    soften,
    to_bytes,
    uniform,
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
from .task import (
    IMAGE_SIZE,
    EmbeddedTask,
    Images,
    LabeledImages,
    Labels,
    generator,
    rendered_task,
    stratified_split,
    without_duplicates,
)

CLASSES = tuple("0123456789")

# Handwritten digits

HANDWRITTEN_SIZES = {"train": 1000, "validation": 300, "test": 497}
BRIGHTEST = 16  # the source's value of white


def build_digits() -> EmbeddedTask:
    """Handwritten digits 0 to 9: 8x8 grey images enlarged to 32x32, 1,000 / 300 / 497 of them.

    Source: the test set of the UCI "Optical Recognition of Handwritten Digits" data, as shipped
    with scikit-learn (``sklearn.datasets.load_digits``).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    enlarged = []
    for image in bunch.images:
        grey = Image.fromarray((image * (255 / BRIGHTEST)).astype(np.uint8))
        large = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        enlarged.append(np.asarray(large.convert("RGB")))
    examples = LabeledImages(np.stack(enlarged), bunch.target.astype(np.int64))
    splits = stratified_split(examples, HANDWRITTEN_SIZES, generator("digits"))
    return EmbeddedTask("digits", CLASSES, without_duplicates(splits))


# Printed digits

PRINTED_JITTER = Jitter(rotation=5, scale=(0.8, 1.1), shift=1.5, shear=0.08)


def build_printed_digits() -> EmbeddedTask:
    """Digits 0 to 9 in serif and typewriter fonts, dark on light paper or light on dark.

    Source: rendered with the fonts that come with matplotlib, none of them a font of
    ``street_numbers``.
    """
    return rendered_task("printed_digits", CLASSES, _print)


def _print(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    digits = []
    for digit in labels:
        digits.append(blank())
        paste_centred(digits[-1], glyph(str(digit), SERIF_FONTS[rng.integers(len(SERIF_FONTS))]))
    masks = place_all(digits, random_poses(rng, count, PRINTED_JITTER))
    paper_tint = uniform(rng, (0.75, 1.0), count, 1, 1, 3)
    paper = paper_tint * (1 - 0.15 * smooth_noise(rng, count, 4, 1))
    ink = uniform(rng, (0.0, 0.35), count, 3)
    printed = paint(paper, ink, masks)
    negative = rng.random((count, 1, 1, 1)) < 0.5
    printed = np.where(negative, 1 - printed, printed)
    return to_bytes(add_noise(soften(printed, rng, (0.0, 0.6)), rng, (0.0, 0.04)))


# Street numbers

STREET_JITTER = Jitter(rotation=6, scale=(0.9, 1.1), shift=1.0, shear=0.1)
NEIGHBOUR_CHANCE = 0.7


def build_street_numbers() -> EmbeddedTask:
    """House-number digits 0 to 9 in sans-serif fonts, cropped out of a longer number.

    Neighbouring digits intrude from the sides; colours, backgrounds, pose, blur and noise vary.
    Source: rendered with the fonts that come with matplotlib.
    """
    return rendered_task("street_numbers", CLASSES, _photograph_numbers)


def _photograph_numbers(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    numbers = [_draw_number(str(digit), rng) for digit in labels]
    masks = place_all(numbers, random_poses(rng, count, STREET_JITTER))
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
