"""The ``patterns`` task: periodic and cellular textures, named by descriptive words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .appearance import (
    Floats,
    Range,
    add_noise,
    contrasting_colours,
    paint,
    pixel_grid,
    random_colours,
    relight,
    smooth_noise,
    soften,
    to_bytes,
    uniform,
)
from .task import IMAGE_SIZE, EmbeddedTask, Images, Labels, rendered_task

# A field takes coordinates in periods, of shape (N, 32, 32), and is positive where there is ink.
Field = Callable[[Floats, Floats, np.random.Generator], Floats]

CRACKED_CELLS = 40
MOST_TILT = np.pi / 9  # largest angle between the pattern and the image, in radians


@dataclass(frozen=True)
class Pattern:
    """A texture and the range of its period, in pixels."""

    field: Field
    period: Range


def build_patterns() -> EmbeddedTask:
    """Eight textures in two random colours, at varying scale, orientation and phase.

    Source: computed; a small counterpart of the "Describable Textures Dataset".
    """
    return rendered_task("patterns", tuple(PATTERNS), _render)


def _render(labels: Labels, rng: np.random.Generator) -> Images:
    count = len(labels)
    ink = np.empty((count, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    for label, pattern in enumerate(PATTERNS.values()):
        rows = np.flatnonzero(labels == label)
        ink[rows] = _inked(pattern, len(rows), rng)
    ground = random_colours(rng, count)
    uneven = 0.3 * (smooth_noise(rng, count, 4, 3) - 0.5)
    painted = paint(ground[:, None, None] + uneven, contrasting_colours(rng, ground), ink)
    lit = relight(painted, rng, brightness=(0.7, 1.2), contrast=(0.8, 1.1))
    return to_bytes(add_noise(soften(lit, rng, (0.0, 0.7)), rng, (0.0, 0.04)))


def _inked(pattern: Pattern, count: int, rng: np.random.Generator) -> Floats:
    """``count`` masks of one pattern, with edges about a pixel wide."""
    period = uniform(rng, pattern.period, count, 1, 1)
    angle = uniform(rng, (-MOST_TILT, MOST_TILT), count, 1, 1)
    warp = 0.12 * (smooth_noise(rng, count, 4, 2) - 0.5)
    phase = uniform(rng, (-0.5, 0.5), count, 1, 1, 2)
    x, y = pixel_grid()
    u = (x * np.cos(angle) + y * np.sin(angle)) / period + warp[..., 0] + phase[..., 0]
    v = (y * np.cos(angle) - x * np.sin(angle)) / period + warp[..., 1] + phase[..., 1]
    return np.clip(0.5 + pattern.field(u, v, rng) * period, 0, 1)


def _off_centre(position: Floats) -> Floats:
    """Distance of a position from the middle of its unit interval: 0 to 1/2."""
    distance: Floats = np.abs(position - np.floor(position) - 0.5)
    return distance


def _per_image(rng: np.random.Generator, bounds: Range, like: Floats) -> Floats:
    return uniform(rng, bounds, len(like), 1, 1)


def _banded(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return _per_image(rng, (0.15, 0.35), u) - _off_centre(u)


def _chequered(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    return 4 * (0.25 - _off_centre(u)) * (0.25 - _off_centre(v))


def _dotted(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    stagger = rng.integers(2, size=(len(u), 1, 1)) * (np.floor(v) % 2) / 2
    radius = _per_image(rng, (0.2, 0.36), u)
    return radius - np.hypot(_off_centre(u + stagger), _off_centre(v))


def _gridded(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    half_width = _per_image(rng, (0.06, 0.14), u)
    return half_width - np.minimum(_off_centre(u), _off_centre(v))


def _zigzagged(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    swing = _per_image(rng, (1.0, 1.6), u) * _off_centre(v / 1.6)
    return _per_image(rng, (0.18, 0.32), u) - _off_centre(u + 2 * swing)


def _woven(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    over = (np.floor(u) + np.floor(v)) % 2 == 0
    across = np.where(over, u, v)
    return (0.25 - _off_centre(2 * across)) / 2


def _spiralled(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    arms = rng.choice([-2, -1, 1, 2], size=(len(u), 1, 1))
    turn = arms * np.arctan2(v, u) / (2 * np.pi)
    half_width = _per_image(rng, (0.18, 0.32), u)
    return half_width - _off_centre(np.hypot(u, v) + turn)


def _cracked(u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    """Cell borders: where the two nearest of some random points are almost equally far."""
    reach = 2.5
    points = uniform(rng, (-reach, reach), 2, len(u), CRACKED_CELLS, 1, 1)
    distances = np.hypot(u[:, None] - points[0], v[:, None] - points[1])
    nearest = np.partition(distances, 1, axis=1)
    half_width = _per_image(rng, (0.07, 0.14), u)
    return half_width - (nearest[:, 1] - nearest[:, 0]) / 2


PATTERNS = {
    "banded": Pattern(_banded, (6, 10)),
    "chequered": Pattern(_chequered, (10, 15)),
    "dotted": Pattern(_dotted, (7, 11)),
    "gridded": Pattern(_gridded, (8, 12)),
    "zigzagged": Pattern(_zigzagged, (7, 10)),
    "woven": Pattern(_woven, (9, 12)),
    "spiralled": Pattern(_spiralled, (7, 10)),
    "cracked": Pattern(_cracked, (9, 12)),
}
