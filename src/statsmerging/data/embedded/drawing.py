"""Drawing with Pillow: glyphs and canvases, and the placement of a canvas in an image.

A canvas has twice the scale of the image, with its origin at the centre. It is halved when it is
placed, which smooths its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .appearance import Floats, Range
from .task import IMAGE_SIZE

OVERSAMPLING = 2
CANVAS = OVERSAMPLING * IMAGE_SIZE
GLYPH_SIZE = 60

SANS_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "cmss10",
)
SERIF_FONTS = (
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "STIXGeneralBolIta",
    "cmr10",
    "cmb10",
    "cmti10",
    "cmtt10",
)

Homographies = NDArray[np.float64]


@dataclass(frozen=True)
class Jitter:
    """Limits of a canvas's random deviation from an upright, centred pose.

    Attributes:
        rotation: largest turn in either direction, in degrees.
        scale: smallest and largest magnification.
        shift: largest displacement along either axis, in image pixels.
        shear: largest horizontal shear in either direction (x per y).
        tilt: largest perspective foreshortening across the image, as a fraction.
    """

    rotation: float = 0.0
    scale: Range = (1.0, 1.0)
    shift: float = 0.0
    shear: float = 0.0
    tilt: float = 0.0


def random_poses(rng: np.random.Generator, count: int, jitter: Jitter) -> Homographies:
    """Random poses of shape ``(count, 3, 3)``: homographies from the image back to the canvas.

    Both sides are in canvas pixels relative to their centre.
    """
    angle = np.deg2rad(rng.uniform(-jitter.rotation, jitter.rotation, count))
    scale = rng.uniform(*jitter.scale, count)
    shift = rng.uniform(-jitter.shift, jitter.shift, (count, 2)) * OVERSAMPLING

    linear = np.tile(np.eye(3), (count, 1, 1))
    linear[:, 0, 0] = linear[:, 1, 1] = np.cos(angle) / scale
    linear[:, 0, 1] = np.sin(angle) / scale
    linear[:, 1, 0] = -linear[:, 0, 1]

    slant = np.tile(np.eye(3), (count, 1, 1))
    slant[:, 0, 1] = rng.uniform(-jitter.shear, jitter.shear, count)
    slant[:, 2, :2] = rng.uniform(-jitter.tilt, jitter.tilt, (count, 2)) / CANVAS

    recentre = np.tile(np.eye(3), (count, 1, 1))
    recentre[:, :2, 2] = -shift
    return slant @ linear @ recentre


def place(canvas: Image.Image, pose: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The canvas in a pose, as ``uint8`` of shape ``(32, 32)`` or ``(32, 32, channels)``."""
    # Pillow's transforms count from the upper left corner.
    to_canvas = np.eye(3)
    to_canvas[:2, 2] = canvas.width / 2, canvas.height / 2
    from_corner = np.eye(3)
    from_corner[:2, 2] = -CANVAS / 2
    homography = to_canvas @ pose @ from_corner
    homography /= homography[2, 2]
    placed = canvas.transform(
        (CANVAS, CANVAS),
        Image.Transform.PERSPECTIVE,
        homography.ravel()[:8].tolist(),
        resample=Image.Resampling.BILINEAR,
    )
    return np.asarray(placed.reduce(OVERSAMPLING))


def place_all(canvases: Sequence[Image.Image], poses: Homographies) -> Floats:
    """Place each canvas in its pose; ``float32`` in 0..1, shape ``(N, 32, 32[, channels])``."""
    placed = [place(canvas, pose) for canvas, pose in zip(canvases, poses, strict=True)]
    return np.stack(placed).astype(np.float32) / 255


def blank(mode: str = "L", width: int = CANVAS, height: int = CANVAS) -> Image.Image:
    """An empty canvas."""
    return Image.new(mode, (width, height))


@cache
def font(name: str, size: int = GLYPH_SIZE) -> ImageFont.FreeTypeFont:
    """One of the fonts that come with matplotlib, by its file name without ending."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    # The basic layout is the same in every build of Pillow; the default one is not.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def glyph(text: str, font_name: str) -> Image.Image:
    """The ink of a text, greyscale, cropped to its bounding box; cached, so do not modify it."""
    left, top, right, bottom = (round(edge) for edge in font(font_name).getbbox(text))
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), text, fill=255, font=font(font_name))
    return ink


def paste_centred(canvas: Image.Image, ink: Image.Image, x: float = 0.0) -> None:
    """Add ink to a greyscale canvas, with its middle ``x`` pixels to the right of the centre."""
    left = round((canvas.width - ink.width) / 2 + x)
    canvas.paste(255, (left, (canvas.height - ink.height) // 2), ink)
