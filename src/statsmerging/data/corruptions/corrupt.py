"""One image, corrupted: a pure function of its pixels and the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from statsmerging.data.corruptions.kinds import (
    CONSTANTS,
    contrast,
    gaussian_noise,
    impulse_noise,
    jpeg_compression,
    motion_blur,
    pixelate,
    pixelate_cifar32,
    spatter,
)
from statsmerging.data.pictures import as_seen, image_digest
from statsmerging.data.settings import CorruptionSettings
from statsmerging.store.hashing import code_sha256, json_sha256

#: Each takes an image, a generator and the constants of a severity.
DISTORTIONS: dict[str, Callable[..., Image.Image]] = {
    function.__name__: function
    for function in (
        motion_blur,
        impulse_noise,
        gaussian_noise,
        pixelate,
        pixelate_cifar32,
        spatter,
        contrast,
        jpeg_compression,
    )
}

#: Packages that compute the distortions.
_PACKAGES = ("numpy", "pillow", "scikit-image", "scipy")


def corrupt(image: Image.Image, settings: CorruptionSettings) -> Image.Image:
    """The corrupted image, RGB; ``settings.kind`` must not be ``none``.

    What is random follows from the settings and the image's own pixels, so an image is corrupted in
    the same way in any order, in any process and beside any other images.
    """
    image = as_seen(image)
    strength = CONSTANTS[settings.constants][settings.kind][settings.severity - 1]
    return DISTORTIONS[settings.kind](image, _generator(image, settings), *strength)


def corruption_key(settings: CorruptionSettings) -> str:
    """Hash of all that determines what becomes of an image."""
    code = code_sha256(Path(__file__).parent, _PACKAGES)
    return json_sha256([code, *_identity(settings), settings.constants])


def _generator(image: Image.Image, settings: CorruptionSettings) -> np.random.Generator:
    identity = json_sha256([*_identity(settings), image_digest(image).hex()])
    return np.random.default_rng(int(identity, 16))


def _identity(settings: CorruptionSettings) -> list[str | int]:
    return [settings.kind, settings.severity, settings.seed]
