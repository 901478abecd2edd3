"""A freshly initialised image tower of open_clip: full size without a download."""

from __future__ import annotations

from torch import Tensor

from statsmerging.zoo.backbones import create_clip
from statsmerging.zoo.settings import PRETRAIN, BackboneSettings


def random_tower(model: str) -> dict[str, Tensor]:
    """State dict of the image tower of an open_clip model, with random weights."""
    settings = BackboneSettings(
        label=model,
        library="open_clip",
        name=model,
        weights=PRETRAIN,
        tag=None,
        image_size=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        arguments={},
    )
    return dict(create_clip(settings, from_hub=False).visual.state_dict())
