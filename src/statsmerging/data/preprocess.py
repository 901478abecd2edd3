"""From a decoded image to a backbone's input: geometry once, normalisation per batch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from statsmerging.data.pictures import as_seen
from statsmerging.records.hashing import json_sha256

Interpolation = Literal["bilinear", "bicubic", "lanczos"]

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing a checkpoint was trained with.

    Attributes:
        image_size: side of the square input, in pixels.
        mean: per channel, for images scaled to [0, 1].
        std: per channel, for images scaled to [0, 1].
        interpolation: filter of the resize.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"

    def resize(self, image: Image.Image) -> np.ndarray:
        """Shorter side to ``image_size``, centre crop: 3 × S × S, uint8, RGB."""
        image = as_seen(image)
        size = self.image_size
        if image.size != (size, size):
            scale = size / min(image.size)
            width, height = (max(size, round(side * scale)) for side in image.size)
            image = image.resize((width, height), _FILTERS[self.interpolation])
            left, top = (width - size) // 2, (height - size) // 2
            image = image.crop((left, top, left + size, top + size))
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 N × 3 × S × S → float32, zero mean and unit deviation in the checkpoint's terms."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.float() / 255 - mean) / std

    @property
    def geometry_key(self) -> str:
        """Hash of what determines the resized pixels (normalisation does not)."""
        return json_sha256([self.image_size, self.interpolation])

    @property
    def key(self) -> str:
        """Hash of the whole preprocessing."""
        return json_sha256(asdict(self))
