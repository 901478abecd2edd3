"""The ``traffic_signs`` task: European road signs at odd angles in changing light."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from .appearance import Floats, add_noise, backgrounds, relight, soften, to_bytes, uniform
from .drawing import CANVAS, Jitter, font, place_all, random_poses
from .task import EmbeddedTask, Images, Labels, rendered_task

# Signs are drawn once, large, in coordinates of -100 to 100 about their centre.
REACH = 100
TEMPLATE = 4 * CANVAS

RED, BLUE, YELLOW = (190, 25, 35), (25, 75, 165), (240, 195, 30)
WHITE, BLACK = (245, 245, 245), (25, 25, 25)
JITTER = Jitter(rotation=8, scale=(0.75, 1.0), shift=1.5, shear=0.1, tilt=0.25)

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


class SignPainter:
    """Draws on a transparent template in sign coordinates: x to the right, y down."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (TEMPLATE, TEMPLATE))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, colour: Colour) -> None:
        self._draw.polygon([self._pixel(point) for point in points], fill=colour)

    def disc(self, radius: float, colour: Colour) -> None:
        corners = [self._pixel((-radius, -radius)), self._pixel((radius, radius))]
        self._draw.ellipse(corners, fill=colour)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        pixels = [self._pixel(point) for point in points]
        self._draw.line(pixels, fill=colour, width=round(self._length(width)), joint="curve")

    def text(self, text: str, size: float, colour: Colour) -> None:
        face = font("DejaVuSans-Bold", round(self._length(size)))
        self._draw.text(self._pixel((0, 0)), text, fill=colour, font=face, anchor="mm")

    @staticmethod
    def _length(units: float) -> float:
        return units * TEMPLATE / (2 * REACH)

    def _pixel(self, point: tuple[float, float]) -> tuple[float, float]:
        return self._length(point[0] + REACH), self._length(point[1] + REACH)


def build_traffic_signs() -> EmbeddedTask:
    """Twelve road signs that differ in outline, colour and symbol.

    Perspective, wear, background, light, blur and noise vary. Source: drawn, after the signs of
    the Vienna Convention.
    """
    return rendered_task("traffic_signs", tuple(SIGNS), _render)


def _render(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    templates = [_template(draw) for draw in SIGNS.values()]
    placed = place_all([templates[label] for label in labels], random_poses(rng, count, JITTER))
    signs, cover = placed[..., :3], placed[..., 3:]
    scene = backgrounds(rng, count, clutter=0.5)
    composed = scene + cover * (_worn(signs, rng) - scene)
    lit = relight(composed, rng, brightness=(0.5, 1.2), contrast=(0.6, 1.1))
    return to_bytes(add_noise(soften(lit, rng, (0.0, 0.7)), rng, (0.0, 0.04)))


def _template(draw: Callable[[SignPainter], None]) -> Image.Image:
    painter = SignPainter()
    draw(painter)
    return painter.image.resize((CANVAS, CANVAS), Image.Resampling.LANCZOS)


def _worn(signs: Floats, rng: np.random.Generator) -> Floats:
    """Blend each sign with one greyish colour, like the effect of sun and dirt."""
    share = uniform(rng, (0.0, 0.4), len(signs), 1, 1, 1)
    return signs + share * (uniform(rng, (0.3, 0.9), len(signs), 1, 1, 3) - signs)


def _regular(corners: int, radius: float, first: float, centre_y: float = 0.0) -> Points:
    """A regular polygon with its first corner at ``first`` degrees, clockwise from the right."""
    angles = np.deg2rad(first + 360 / corners * np.arange(corners))
    return [(radius * np.cos(angle), centre_y + radius * np.sin(angle)) for angle in angles]


def _stop(sign: SignPainter) -> None:
    sign.polygon(_regular(8, 100, 22.5), WHITE)
    sign.polygon(_regular(8, 92, 22.5), RED)
    sign.text("STOP", 58, WHITE)


def _give_way(sign: SignPainter) -> None:
    sign.polygon(_regular(3, 112, 90, -25), RED)
    sign.polygon(_regular(3, 62, 90, -25), WHITE)


def _no_entry(sign: SignPainter) -> None:
    sign.disc(95, RED)
    sign.polygon([(-65, -16), (65, -16), (65, 16), (-65, 16)], WHITE)


def _speed_limit(limit: int, sign: SignPainter) -> None:
    sign.disc(95, RED)
    sign.disc(74, WHITE)
    sign.text(str(limit), 94, BLACK)


def _priority_road(sign: SignPainter) -> None:
    sign.polygon(_regular(4, 100, 0), BLACK)
    sign.polygon(_regular(4, 95, 0), WHITE)
    sign.polygon(_regular(4, 66, 0), YELLOW)


def _straight_ahead(sign: SignPainter) -> None:
    sign.disc(95, BLUE)
    sign.stroke([(0, 68), (0, -10)], 26, WHITE)
    sign.polygon([(0, -72), (46, -8), (-46, -8)], WHITE)


def _turn_right(sign: SignPainter) -> None:
    sign.disc(95, BLUE)
    sign.stroke([(-40, 62), (-40, -12), (22, -12)], 26, WHITE)
    sign.polygon([(76, -12), (16, -58), (16, 34)], WHITE)


def _warning(sign: SignPainter) -> None:
    sign.polygon(_regular(3, 112, -90, 25), RED)
    sign.polygon(_regular(3, 74, -90, 25), WHITE)


def _danger(sign: SignPainter) -> None:
    _warning(sign)
    sign.polygon([(-12, -32), (12, -32), (7, 24), (-7, 24)], BLACK)
    sign.polygon([(-9, 34), (9, 34), (9, 52), (-9, 52)], BLACK)


def _bends(sign: SignPainter) -> None:
    _warning(sign)
    sign.stroke([(14, 56), (14, 36), (-16, 14), (8, -8), (8, -20)], 17, BLACK)


def _parking(sign: SignPainter) -> None:
    sign.polygon(_regular(4, 122, 45), BLUE)
    sign.text("P", 150, WHITE)


SIGNS: dict[str, Callable[[SignPainter], None]] = {
    "stop": _stop,
    "give_way": _give_way,
    "no_entry": _no_entry,
    "speed_30": partial(_speed_limit, 30),
    "speed_50": partial(_speed_limit, 50),
    "speed_80": partial(_speed_limit, 80),
    "priority_road": _priority_road,
    "straight_ahead": _straight_ahead,
    "turn_right": _turn_right,
    "danger": _danger,
    "bends": _bends,
    "parking": _parking,
}
