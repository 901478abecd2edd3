"""One corrupted image: a pure function of the image's pixels and the settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from statsmerging.data.corruptions.kinds import CONSTANTS, DISTORTIONS
from statsmerging.data.pictures import as_seen, image_digest
from statsmerging.data.settings import CorruptionSettings
from statsmerging.store.hashing import code_sha256, json_sha256

#: Packages that compute the distortions.
_PACKAGES = ("numpy", "pillow", "scikit-image", "scipy")


def corrupt(image: Image.Image, settings: CorruptionSettings) -> Image.Image:
    """The corrupted image, RGB; ``settings.kind`` must not be ``none``.

    The random numbers follow from the settings and the image's own pixels, so an image is corrupted
    in the same way in any order, in any process and beside any other images.
    """
    image = as_seen(image)
    seed = json_sha256([*_identity(settings), image_digest(image).hex()])
    strength = CONSTANTS[settings.constants][settings.kind][settings.severity - 1]
    return DISTORTIONS[settings.kind](image, np.random.default_rng(int(seed, 16)), *strength)


def corruption_key(settings: CorruptionSettings) -> str:
    """Hash of everything that determines the corrupted image: code, packages and settings."""
    code = code_sha256(Path(__file__).parent, _PACKAGES)
    return json_sha256([code, *_identity(settings), settings.constants])


def _identity(settings: CorruptionSettings) -> list[str | int]:
    return [settings.kind, settings.severity, settings.seed]
