"""Cropping pictures so that no two splits ever see the same piece of one.

Each picture is cut into a grid of tiles, whole tiles go to one split, and a crop lies wholly
inside one tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .appearance import Floats
from .task import IMAGE_SIZE, RENDERED_SIZES, LabeledImages, balanced_labels, generator

# Down a row the cycle advances by two, so that tiles of one split meet at corners at most and
# every part of a picture holds all three.
SPLIT_CYCLE = ("train", "validation", "train", "train", "test")

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, in pixels; ``bottom`` and ``right`` lie just outside it."""

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
        least_deviation: tiles whose grey levels (0..255) vary less than this are left out.
    """

    tile: int
    side: tuple[int, int]
    least_deviation: float = 0.0


def split_of(row: int, column: int) -> str:
    """The split to which the tile at a place of the grid belongs."""
    return SPLIT_CYCLE[(2 * row + column) % len(SPLIT_CYCLE)]


def tiles_by_split(height: int, width: int, tile: int) -> dict[str, list[Tile]]:
    """Cut a picture of the given size into equal tiles and deal them out to the splits.

    Raises:
        ValueError: if the picture is smaller than one tile.
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
    vary: Callable[[Floats, np.random.Generator], NDArray[np.uint8]],
) -> dict[str, LabeledImages]:
    """Crops of several pictures, labelled by the picture: 1,000 / 300 / 500 of them.

    Args:
        name: seeds the choice of crops.
        pictures: RGB pictures, each ``uint8`` of shape ``(H, W, 3)``.
        cropping: sizes of tiles and crops.
        vary: turns a ``float32`` batch of crops in 0..1 into its final ``uint8`` images.
    """
    tiles = [
        tiles_by_split(picture.shape[0], picture.shape[1], cropping.tile) for picture in pictures
    ]
    splits = {}
    for split, count in RENDERED_SIZES.items():
        rng = generator(f"{name}/{split}")
        labels = balanced_labels(count, len(pictures), rng)
        lively = [
            _lively(picture, places[split], cropping.least_deviation)
            for picture, places in zip(pictures, tiles, strict=True)
        ]
        crops = [_random_crop(pictures[i], lively[i], cropping.side, rng) for i in labels]
        images = vary(np.stack(crops).astype(np.float32) / 255, rng)
        splits[split] = LabeledImages(images, labels)
    return splits


def _lively(picture: Picture, tiles: list[Tile], least_deviation: float) -> list[Tile]:
    """The tiles that show something: a patch of plain sky tells no picture from another."""
    return [tile for tile in tiles if _cut(picture, tile).mean(2).std() >= least_deviation]


def _cut(picture: Picture, tile: Tile) -> Picture:
    return picture[tile.top : tile.bottom, tile.left : tile.right]


def _random_crop(
    picture: Picture, tiles: list[Tile], side: tuple[int, int], rng: np.random.Generator
) -> Picture:
    piece = _cut(picture, tiles[rng.integers(len(tiles))])
    length = int(rng.integers(side[0], side[1], endpoint=True))
    top, left = (int(rng.integers(extent - length + 1)) for extent in piece.shape[:2])
    crop = Image.fromarray(piece[top : top + length, left : left + length])
    return np.asarray(crop.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX))
