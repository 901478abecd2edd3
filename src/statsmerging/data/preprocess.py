"""From a decoded image to a backbone's input: geometry once, normalisation per batch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from statsmerging.data.pictures import LARGEST_PICTURE, as_seen
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import json_sha256

Interpolation = Literal["bilinear", "bicubic", "lanczos"]

CropMode = Literal["center", "squash"]

#: The whole shorter side: what keys of caches mean that say nothing of a crop.
_WHOLE = {"crop_ratio": 1.0, "crop_mode": "center"}


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing a checkpoint was trained with, as timm and open_clip do it.

    Attributes:
        image_size: side of the square input, in pixels.
        mean: per channel, for images scaled to [0, 1].
        std: per channel, for images scaled to [0, 1].
        interpolation: filter of the resize.
        crop_ratio: side of the input as a share of the resized image's shorter side.
        crop_mode: ``center`` keeps the proportions of the image, ``squash`` makes it a square.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    crop_ratio: float = 1.0
    crop_mode: CropMode = "center"

    def resize(self, image: Image.Image) -> np.ndarray:
        """Resize, then cut the square out of the middle: 3 × S × S, uint8, RGB.

        Raises:
            UserError: an image so narrow that, resized, it would be larger than any that is read.
        """
        image = as_seen(image)
        side = math.floor(self.image_size / self.crop_ratio)
        keeps = self.crop_mode == "center"
        if side**2 * (max(image.size) / min(image.size) if keeps else 1) > LARGEST_PICTURE:
            raise UserError(
                f"the picture of {image.width} × {image.height} pixels is too large when it is "
                f"{side} pixels across"
            )
        size = [side] if keeps else [side, side]
        scaled = resize(image, size, InterpolationMode(self.interpolation))
        square = center_crop(scaled, [self.image_size])
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 N × 3 × S × S → float32, zero mean and unit deviation in the checkpoint's terms."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.float() / 255 - mean) / std

    @property
    def geometry_key(self) -> str:
        """Hash of what determines the resized pixels (normalisation does not)."""
        return json_sha256([self.image_size, self.interpolation, *self._crop.values()])

    @property
    def key(self) -> str:
        """Hash of the whole preprocessing."""
        values = {name: value for name, value in asdict(self).items() if name not in _WHOLE}
        return json_sha256({**values, **self._crop})

    @property
    def _crop(self) -> dict[str, Any]:
        crop = {name: getattr(self, name) for name in _WHOLE}
        return {} if crop == _WHOLE else crop
