"""The genuine checkpoints beside the tests, and our backbone that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statsmerging.zoo.backbones import create_backbone
from statsmerging.zoo.settings import BackboneSettings
from statsmerging.zoo.weights import write_weights

FIXTURES = Path(__file__).parent / "fixtures"

#: The size of the towers in the fixtures.
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {
        "layers": 2,
        "width": 16,
        "head_width": 4,
        "mlp_ratio": 2.0,
        "patch_size": 4,
        "image_size": 8,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 8, "heads": 2, "layers": 1},
}


def tiny_clip(mlp_ratio: float) -> dict[str, Any]:
    """Arguments of open_clip for a tower as wide in its hidden layers as asked."""
    return {**TINY_CLIP, "vision_cfg": {**TINY_CLIP["vision_cfg"], "mlp_ratio": mlp_ratio}}


def our_features(
    tower: dict[str, Tensor], images: Tensor, folder: Path, mlp_ratio: float = 2.0
) -> Tensor:
    """Features of the images from our open_clip backbone with the tower's weights, from a file."""
    file = folder / "tower.safetensors"
    write_weights(file, tower)
    settings = BackboneSettings(
        label="test",
        library="open_clip",
        name="ViT-B-32-quickgelu",
        weights=str(file),
        tag=None,
        image_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        arguments=tiny_clip(mlp_ratio),
    )
    with torch.inference_mode():
        features: Tensor = create_backbone(settings).eval()(images)
    return features
