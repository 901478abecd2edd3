"""The ``printed_digits`` task: single digits as set in a book."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .appearance import add_noise, paint, smooth_noise, soften, to_bytes, uniform
from .drawing import SERIF_FONTS, Jitter, blank, glyph, paste_centred, place_all, random_poses
from .task import EmbeddedTask, Images, Labels, rendered_task

JITTER = Jitter(rotation=5, scale=(0.8, 1.1), shift=1.5, shear=0.08)


def build_printed_digits() -> EmbeddedTask:
    """Digits 0 to 9 in serif and typewriter fonts, dark on light paper or light on dark.

    Source: rendered with the fonts that come with matplotlib, none of them a font of
    ``street_numbers``.
    """
    return rendered_task("printed_digits", tuple("0123456789"), _render)


def _render(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    masks = place_all(
        [_draw_digit(str(digit), rng) for digit in labels], random_poses(rng, count, JITTER)
    )
    paper_tint = uniform(rng, (0.75, 1.0), count, 1, 1, 3)
    paper = paper_tint * (1 - 0.15 * smooth_noise(rng, count, 4, 1))
    ink = uniform(rng, (0.0, 0.35), count, 3)
    printed = paint(paper, ink, masks)
    negative = rng.random((count, 1, 1, 1)) < 0.5
    printed = np.where(negative, 1 - printed, printed)
    return to_bytes(add_noise(soften(printed, rng, (0.0, 0.6)), rng, (0.0, 0.04)))


def _draw_digit(digit: str, rng: np.random.Generator) -> Image.Image:
    canvas = blank()
    paste_centred(canvas, glyph(digit, SERIF_FONTS[rng.integers(len(SERIF_FONTS))]))
    return canvas
