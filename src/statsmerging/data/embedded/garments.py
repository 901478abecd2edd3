"""The ``garments`` task: clothes and accessories, as if photographed flat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from .appearance import (
    Floats,
    add_noise,
    backgrounds,
    contrasting_colours,
    pixel_grid,
    relight,
    soften,
    to_bytes,
    uniform,
)
from .drawing import CANVAS, Jitter, blank, place_all, random_poses
from .task import EmbeddedTask, Images, Labels, rendered_task

# Outlines are in canvas pixels about the centre: x to the right, y down, each within -30..30.
Point = tuple[float, float]

JITTER = Jitter(rotation=8, scale=(0.85, 1.05), shift=1.2, shear=0.08)
WOBBLE = 0.9
SILHOUETTE, DETAIL = (255, 0, 0), (255, 255, 0)


class Tailor:
    """Draws one garment: its silhouette in the red channel, its details in the green one.

    Every corner is displaced at random, so that no two garments have the same outline.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.canvas = blank("RGB")
        self._draw = ImageDraw.Draw(self.canvas)

    def cut(self, points: Sequence[Point], colour: tuple[int, int, int] = SILHOUETTE) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._wobbled(points), fill=colour)

    def cut_double(self, right_half: Sequence[Point]) -> None:
        """Fill the polygon made of a right half, from top to bottom, and its mirror image."""
        left_half = [(-x, y) for x, y in reversed(right_half)]
        self.cut([*right_half, *left_half])

    def stitch(
        self, points: Sequence[Point], width: int, colour: tuple[int, int, int] = DETAIL
    ) -> None:
        """Draw an open line."""
        self._draw.line(self._wobbled(points), fill=colour, width=width, joint="curve")

    def between(self, low: float, high: float) -> float:
        """A random measure."""
        return float(self.rng.uniform(low, high))

    def _wobbled(self, points: Sequence[Point]) -> list[Point]:
        moved = np.array(points) + self.rng.normal(0, WOBBLE, (len(points), 2)) + CANVAS / 2
        return [(float(x), float(y)) for x, y in moved]


def build_garments() -> EmbeddedTask:
    """Eight kinds of garment in plain, striped or chequered cloth on varied backgrounds.

    Source: drawn; a small counterpart of "Fashion-MNIST".
    """
    return rendered_task("garments", tuple(GARMENTS), _render)


def _render(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    cuts = tuple(GARMENTS.values())
    drawn = place_all(
        [_draw(cuts[label], rng) for label in labels], random_poses(rng, count, JITTER)
    )
    silhouette, detail = drawn[..., 0:1], drawn[..., 1:2]
    scene = backgrounds(rng, count)
    cloth = _cloth(contrasting_colours(rng, scene.mean((1, 2))), rng)
    trim = cloth * np.where(rng.random((count, 1, 1, 1)) < 0.5, 0.45, 1.5).astype(np.float32)
    worn = cloth + detail * (trim - cloth)
    composed = scene + silhouette * (worn - scene)
    lit = relight(composed, rng, brightness=(0.7, 1.2), contrast=(0.8, 1.1))
    return to_bytes(add_noise(soften(lit, rng, (0.0, 0.7)), rng, (0.0, 0.04)))


def _draw(cut: Callable[[Tailor], None], rng: np.random.Generator) -> Image.Image:
    tailor = Tailor(rng)
    cut(tailor)
    return ImageOps.mirror(tailor.canvas) if rng.random() < 0.5 else tailor.canvas


def _cloth(colours: Floats, rng: np.random.Generator) -> Floats:
    """Cloth in the given colours, shaded towards one side, plain, striped or chequered."""
    count = len(colours)
    x, y = pixel_grid()
    angle = uniform(rng, (0.0, np.pi), count, 1, 1)
    period = uniform(rng, (3.0, 7.0), count, 1, 1)
    along = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    across = np.sin(2 * np.pi * (y * np.cos(angle) - x * np.sin(angle)) / period)
    style = rng.integers(3, size=(count, 1, 1))
    weave = np.select([style == 0, style == 1], [np.zeros_like(along), along], along * across)
    shade = 1 + uniform(rng, (-0.02, 0.02), count, 1, 1) * x
    relief = shade * (1 + uniform(rng, (0.0, 0.15), count, 1, 1) * weave)
    cloth: Floats = colours[:, None, None] * relief[..., None]
    return cloth


def _top(tailor: Tailor, *, sleeve: float, droop: float, hem: float, flare: float) -> None:
    """A garment with sleeves of a given length that hang at ``droop`` degrees below level."""
    shoulder_x, shoulder_y = tailor.between(11, 13), -20.0
    down, out = np.sin(np.deg2rad(droop)), np.cos(np.deg2rad(droop))
    tip_x, tip_y = shoulder_x + sleeve * out, shoulder_y + sleeve * down
    cuff = tailor.between(7, 9)
    waist = tailor.between(10, 12)
    tailor.cut_double(
        [
            (4, -22),
            (shoulder_x, shoulder_y),
            (tip_x, tip_y),
            (tip_x - cuff * down, tip_y + cuff * out),
            (waist, -8),
            (waist + flare, hem),
        ]
    )


def _shirt(tailor: Tailor) -> None:
    sleeve = tailor.between(10, 28)
    _top(tailor, sleeve=sleeve, droop=tailor.between(35, 65), hem=tailor.between(13, 20), flare=1)
    tailor.stitch([(-5, -22), (0, -18), (5, -22)], 2)


def _coat(tailor: Tailor) -> None:
    droop, hem = tailor.between(62, 74), tailor.between(25, 29)
    _top(tailor, sleeve=tailor.between(32, 37), droop=droop, hem=hem, flare=tailor.between(2, 5))
    tailor.stitch([(0, -12), (0, hem - 1)], 2)
    tailor.cut([(-5, -23), (5, -23), (0, -10)], DETAIL)


def _trousers(tailor: Tailor) -> None:
    length = tailor.between(20, 29)
    ankle_in, ankle_out = tailor.between(2.5, 5), tailor.between(10, 15)
    tailor.cut_double([(10, -26), (12, -14), (ankle_out, length), (ankle_in, length), (0, -9)])
    tailor.stitch([(-10, -24), (10, -24)], 2)


def _dress(tailor: Tailor) -> None:
    waist_y, hem = tailor.between(-8, -2), tailor.between(22, 29)
    waist = tailor.between(5, 7)
    skirt = tailor.between(13, 20)
    tailor.cut_double([(3, -18), (5, -27), (9, -27), (9, -16), (waist, waist_y), (skirt, hem)])
    tailor.stitch([(-waist, waist_y), (waist, waist_y)], 2)


def _bag(tailor: Tailor) -> None:
    top, bottom = tailor.between(-8, 0), tailor.between(18, 24)
    upper, lower = tailor.between(14, 20), tailor.between(18, 25)
    rise = tailor.between(12, 20)
    tailor.cut_double([(upper, top), (lower, bottom)])
    grip = 0.55 * upper
    arch = [(-grip, top), (-0.8 * grip, top - rise), (0.8 * grip, top - rise), (grip, top)]
    tailor.stitch(arch, 3, SILHOUETTE)
    tailor.stitch([(-upper, top + 9), (upper, top + 9)], 2)


def _boot(tailor: Tailor) -> None:
    shaft_top, toe = tailor.between(-28, -14), tailor.between(18, 26)
    tailor.cut([(-13, shaft_top), (3, shaft_top), (4, 4), (toe - 4, 9), (toe, 20), (-14, 20)])
    tailor.cut([(-15, 19), (-4, 19), (-5, 26), (-14, 26)], DETAIL)
    tailor.stitch([(-5, 21), (toe, 21)], 3)


def _sneaker(tailor: Tailor) -> None:
    collar, toe = tailor.between(-13, -8), tailor.between(23, 28)
    tailor.cut(
        [(-25, collar), (-15, collar + 4), (-5, collar), (8, 0), (toe - 3, 5), (toe, 12), (-26, 12)]
    )
    tailor.stitch([(-26, 12), (toe, 12)], 5)
    tailor.stitch([(-2, collar + 4), (-6, 4)], 2)
    tailor.stitch([(5, collar + 9), (0, 7)], 2)


def _hat(tailor: Tailor) -> None:
    crown, height = tailor.between(10, 14), tailor.between(16, 24)
    brim = tailor.between(22, 28)
    tailor.cut_double([(crown - 3, 4 - height), (crown, 6)])
    tailor.cut_double([(crown, 3), (brim, 7), (brim - 5, 12), (crown, 14)])
    tailor.stitch([(-crown, 3), (crown, 3)], 4)


GARMENTS: dict[str, Callable[[Tailor], None]] = {
    "shirt": _shirt,
    "coat": _coat,
    "trousers": _trousers,
    "dress": _dress,
    "bag": _bag,
    "boot": _boot,
    "sneaker": _sneaker,
    "hat": _hat,
}
