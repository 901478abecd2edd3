"""Twelve geometric silhouettes, filled with white on a canvas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .drawing import CANVAS, blank

# Corner coordinates are in units of half the silhouette's size, about its centre.
Outline = list[tuple[float, float]]
RADIUS = 0.42 * CANVAS


def draw_silhouette(name: str) -> Image.Image:
    """A greyscale canvas with the named silhouette.

    Raises:
        KeyError: if there is no such silhouette.
    """
    canvas = blank()
    draw = ImageDraw.Draw(canvas)
    corners = [(CANVAS / 2 + RADIUS * x, CANVAS / 2 + RADIUS * y) for x, y in OUTLINES[name]()]
    draw.polygon(corners, fill=255)
    return canvas


def _arc(
    start: float, end: float, radius: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)
) -> Outline:
    """Points along an arc between two angles in degrees, clockwise from the right."""
    angles = np.deg2rad(np.linspace(start, end, 40))
    x, y = centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _disc() -> Outline:
    return _arc(0, 360)


def _half_disc() -> Outline:
    return _arc(0, 180, centre=(0, -0.4))


def _ring() -> Outline:
    return _arc(0, 360) + _arc(360, 0, radius=0.55)


def _crescent() -> Outline:
    return _arc(60, 300) + _arc(267, 93, radius=0.87, centre=(0.55, 0))


def _ellipse() -> Outline:
    return [(x, 0.45 * y) for x, y in _arc(0, 360)]


def _square() -> Outline:
    return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)]


def _triangle() -> Outline:
    return [(0, -1), (0.87, 0.5), (-0.87, 0.5)]


def _hourglass() -> Outline:
    return [(-0.8, -0.9), (0.8, -0.9), (0.15, 0), (0.8, 0.9), (-0.8, 0.9), (-0.15, 0)]


def _cross() -> Outline:
    arm, end = 0.3, 0.95
    corner = [(arm, -arm), (end, -arm), (end, arm)]
    turns = [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)]
    return [(a * x + b * y, c * x + d * y) for a, b, c, d in turns for x, y in corner]


def _arrow() -> Outline:
    return [(1, 0), (0.2, 0.8), (0.2, 0.3), (-1, 0.3), (-1, -0.3), (0.2, -0.3), (0.2, -0.8)]


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


OUTLINES: dict[str, Callable[[], Outline]] = {
    "disc": _disc,
    "half_disc": _half_disc,
    "ring": _ring,
    "crescent": _crescent,
    "ellipse": _ellipse,
    "square": _square,
    "triangle": _triangle,
    "hourglass": _hourglass,
    "cross": _cross,
    "arrow": _arrow,
    "star": _star,
    "heart": _heart,
}
