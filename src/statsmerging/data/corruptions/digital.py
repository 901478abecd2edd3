"""What capture, storage and scaling do to an image: contrast, JPEG, pixelation."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from statsmerging.data.corruptions.pixels import image_of, unit_values

#: Side of CIFAR-10's images, in pixels.
CIFAR_SIDE = 32


def contrast(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Draw all values towards the mean of their channel.

    Args:
        factor: what is left of their distance.
    """
    values = unit_values(image)
    means = values.mean(axis=(0, 1))
    return image_of((values - means) * factor + means)


def jpeg_compression(image: Image.Image, _: np.random.Generator, quality: float) -> Image.Image:
    """Store as JPEG and read back.

    Args:
        quality: on libjpeg's scale from 0 to 95.
    """
    file = BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    return Image.open(file)


def pixelate(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """Shrink and enlarge again, by box filters; the size stays.

    Args:
        factor: what is left of both sides in between.
    """
    return _through(image, factor, image.size)


def pixelate_cifar32(image: Image.Image, _: np.random.Generator, factor: float) -> Image.Image:
    """The same through a square of 32 × 32 pixels, which is also the size of the result.

    This is what the published tables of model merging call pixelate: CIFAR-10-C's script on images
    of any size, so that its small factors hardly matter beside the loss of resolution.

    Args:
        factor: what is left of the 32 pixels in between.
    """
    return _through(image, factor, (CIFAR_SIDE, CIFAR_SIDE))


def _through(image: Image.Image, factor: float, size: tuple[int, int]) -> Image.Image:
    width, height = (max(1, int(side * factor)) for side in size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return small.resize(size, Image.Resampling.BOX)
