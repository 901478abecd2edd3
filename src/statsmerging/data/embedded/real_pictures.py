"""Tasks of real pictures: crops of sample pictures, labelled by their picture, and faces.

No two splits ever contain the same piece of a picture: each picture is cut into a grid of tiles, a
tile belongs to one split, and a crop lies inside one tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .appearance import Floats, add_noise, expose, recolour, relight, to_bytes
from .drawing import CANVAS, Jitter, place_all, random_poses
from .task import (
    IMAGE_SIZE,
    RENDERED_SIZES,
    EmbeddedTask,
    Images,
    LabeledImages,
    balanced_labels,
    generator,
    stratified_split,
    without_duplicates,
)

# Splits of neighbouring tiles. From one row to the next the cycle advances by two, so that tiles of
# one held-out split meet at most at corners and every part of a picture contains all three splits.
SPLIT_CYCLE = ("train", "validation", "train", "train", "test")

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, in pixels; ``bottom`` and ``right`` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Cropping:
    """How crops are taken.

    Attributes:
        tile: least side of a tile, in pixels of the picture.
        side: smallest and largest side of a (square) crop; the largest fits into a tile.
        least_deviation: tiles whose grey levels (0..255) have a smaller standard deviation are
            left out.
    """

    tile: int
    side: tuple[int, int]
    least_deviation: float = 0.0


def split_of(row: int, column: int) -> str:
    """The split of the tile at a position of the grid."""
    return SPLIT_CYCLE[(2 * row + column) % len(SPLIT_CYCLE)]


def tiles_by_split(height: int, width: int, tile: int) -> dict[str, list[Tile]]:
    """Cut a picture of the given size into equal tiles and assign each to a split.

    Raises:
        ValueError: the picture is smaller than one tile.
    """
    rows, columns = height // tile, width // tile
    if not rows or not columns:
        raise ValueError(f"a picture of {height} x {width} holds no tile of {tile} x {tile}")
    down, across = height // rows, width // columns
    tiles: dict[str, list[Tile]] = {split: [] for split in RENDERED_SIZES}
    for row in range(rows):
        for column in range(columns):
            top, left = row * down, column * across
            place = Tile(top, left, top + down, left + across)
            tiles[split_of(row, column)].append(place)
    return tiles


def crop_splits(
    name: str,
    pictures: list[Picture],
    cropping: Cropping,
    vary: Callable[[Floats, np.random.Generator], Images],
) -> dict[str, LabeledImages]:
    """Crops of several pictures, labelled by the picture: 1,000 / 300 / 500 of them.

    Args:
        name: seeds the choice of crops.
        pictures: RGB pictures, each ``uint8`` of shape ``(H, W, 3)``.
        cropping: sizes of tiles and crops.
        vary: turns a ``float32`` batch of crops in 0..1 into its final ``uint8`` images.
    """
    pieces: list[dict[str, list[Picture]]] = []
    for picture in pictures:
        tiles = tiles_by_split(picture.shape[0], picture.shape[1], cropping.tile)
        pieces.append({split: [] for split in tiles})
        for split, places in tiles.items():
            for it in places:
                piece = picture[it.top : it.bottom, it.left : it.right]
                # A piece of plain sky does not tell one picture from another.
                if piece.mean(2).std() >= cropping.least_deviation:
                    pieces[-1][split].append(piece)
    splits = {}
    for split, count in RENDERED_SIZES.items():
        rng = generator(f"{name}/{split}")
        labels = balanced_labels(count, len(pictures), rng)
        crops = [_random_crop(pieces[label][split], cropping.side, rng) for label in labels]
        images = vary(np.stack(crops).astype(np.float32) / 255, rng)
        splits[split] = LabeledImages(images, labels)
    return splits


def _random_crop(pieces: list[Picture], side: tuple[int, int], rng: np.random.Generator) -> Picture:
    """A random square of a random piece, resized to the size of all images."""
    piece = pieces[rng.integers(len(pieces))]
    length = int(rng.integers(side[0], side[1], endpoint=True))
    top, left = (int(rng.integers(extent - length + 1)) for extent in piece.shape[:2])
    crop = Image.fromarray(piece[top : top + length, left : left + length])
    return np.asarray(crop.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))


# The tasks of crops

SURFACES = ("brick", "grass", "gravel", "coins", "text", "page")
PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "motorcycle",
    "camera",
    "china",
    "flower",
)
MICROSCOPY = ("cell", "ihc", "retina", "hubble_deep_field", "moon")


def build_surfaces() -> EmbeddedTask:
    """Crops of six grey surfaces; brightness and contrast vary.

    Source: scikit-image's sample pictures. Crops of 36 to 56 pixels, resized to 32x32.
    """
    from skimage import data

    pictures = [_as_rgb(getattr(data, name)()) for name in SURFACES]
    cropping = Cropping(tile=56, side=(36, 56), least_deviation=6.0)
    splits = crop_splits("surfaces", pictures, cropping, _vary_surface)
    return EmbeddedTask("surfaces", SURFACES, without_duplicates(splits))


def build_photographs() -> EmbeddedTask:
    """Crops of eight photographs; hue, saturation and light vary.

    Source: scikit-image's sample pictures, and ``china`` and ``flower`` of scikit-learn. Crops of
    36 to 48 pixels, resized to 32x32. Tiles of plain sky or wall are left out.
    """
    from skimage import data
    from sklearn.datasets import load_sample_images

    # The motorcycle is a stereo pair with its disparity; only the left view is used.
    loaded = {
        "motorcycle": data.stereo_motorcycle()[0],
        **dict(zip(("china", "flower"), load_sample_images().images, strict=True)),
    }
    pictures = [
        _as_rgb(loaded[name] if name in loaded else getattr(data, name)()) for name in PHOTOGRAPHS
    ]
    cropping = Cropping(tile=48, side=(36, 48), least_deviation=12.0)
    splits = crop_splits("photographs", pictures, cropping, _vary_photograph)
    return EmbeddedTask("photographs", PHOTOGRAPHS, without_duplicates(splits))


def build_microscopy() -> EmbeddedTask:
    """Crops of five scientific pictures in random hues, with equalised exposure.

    Source: scikit-image's sample pictures: a cell, an immunohistochemical stain, a retina, the
    Hubble deep field, and the moon. Crops of 40 to 64 pixels, resized to 32x32.
    """
    from skimage import data

    pictures = [
        _as_rgb(data.cell()),
        _as_rgb(data.immunohistochemistry()),
        np.asarray(Image.fromarray(data.retina()).convert("RGB").reduce(2)),
        _as_rgb(data.hubble_deep_field()),
        _as_rgb(data.moon()),
    ]
    cropping = Cropping(tile=64, side=(40, 64), least_deviation=4.0)
    splits = crop_splits("microscopy", pictures, cropping, _vary_microscopy)
    return EmbeddedTask("microscopy", MICROSCOPY, without_duplicates(splits))


def _as_rgb(picture: np.ndarray) -> Picture:
    return np.asarray(Image.fromarray(picture).convert("RGB"))


def _vary_surface(crops: Floats, rng: np.random.Generator) -> Images:
    lit = relight(crops, rng, brightness=(0.75, 1.2), contrast=(0.75, 1.2))
    return to_bytes(add_noise(lit, rng, (0.0, 0.02)))


def _vary_photograph(crops: Floats, rng: np.random.Generator) -> Images:
    coloured = recolour(crops, rng, hue=0.1, saturation=(0.6, 1.0))
    lit = relight(coloured, rng, brightness=(0.8, 1.2), contrast=(0.8, 1.2))
    return to_bytes(add_noise(lit, rng, (0.0, 0.02)))


def _vary_microscopy(crops: Floats, rng: np.random.Generator) -> Images:
    coloured = recolour(crops, rng, hue=np.pi, saturation=(0.0, 1.0))
    exposed = expose(coloured, rng, mean=(0.3, 0.7), deviation=(0.1, 0.2))
    return to_bytes(add_noise(exposed, rng, (0.0, 0.02)))


# Faces

FACE_SIZES = {"train": 100, "validation": 40, "test": 60}
FACES = 100

# The source aligns its faces to the pixel, and most of its other patches are plain, so that a mere
# template would separate the unchanged images. The smallest scale hides the corners of turned ones.
FACE_JITTER = Jitter(rotation=15, scale=(1.35, 1.6), shift=2.0)


def build_faces() -> EmbeddedTask:
    """Grey images with or without a face: 100 / 40 / 60 images, no source image used twice.

    Source: 100 faces of "Labeled Faces in the Wild" and 100 patches without a face, 25x25 pixels
    each, as shipped with scikit-image (``skimage.data.lfw_subset``); here enlarged, slightly
    turned and shifted, with equalised exposure.
    """
    from skimage.data import lfw_subset

    rng = generator("faces")
    canvases = []
    for image in lfw_subset():
        grey = Image.fromarray((image * 255).astype(np.uint8))
        canvases.append(grey.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC).convert("RGB"))
    labels = (np.arange(len(canvases)) < FACES).astype(np.int64)
    placed = place_all(canvases, random_poses(rng, len(canvases), FACE_JITTER))
    exposed = expose(placed, rng, mean=(0.35, 0.65), deviation=(0.12, 0.22))
    images = to_bytes(add_noise(exposed, rng, (0.0, 0.02)))
    splits = stratified_split(LabeledImages(images, labels), FACE_SIZES, rng)
    return EmbeddedTask("faces", ("other", "face"), without_duplicates(splits))
