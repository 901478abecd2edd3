"""Which towers of open_clip can be said in Hugging Face's config."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
from torch import nn

from statsmerging.errors import UserError
from statsmerging.zoo.formats.clip_names import to_hugging_face, vision_config
from tests.zoo.formats.genuine import TINY_CLIP


def tower(name: str = "ViT-B-32-quickgelu", **vision: Any) -> nn.Module:
    arguments = {**TINY_CLIP, "vision_cfg": {**TINY_CLIP["vision_cfg"], **vision}}
    visual: nn.Module = open_clip.create_model(name, **arguments).visual
    return visual


def test_activation_comes_from_the_tower() -> None:
    assert vision_config(tower())["hidden_act"] == "quick_gelu"
    assert vision_config(tower("ViT-B-32"))["hidden_act"] == "gelu"


@pytest.mark.parametrize(
    ("vision", "expected"),
    [
        ({"pool_type": "avg"}, "its pooling or its first normalisation"),
        ({"attentional_pool": True, "attn_pooler_heads": 4}, "its pooling or its first"),
        ({"no_ln_pre": True}, "its pooling or its first normalisation"),
        ({"act_kwargs": {"approximate": "tanh"}}, "its activation GELU"),
        ({"image_size": [8, 12]}, "8 × 12 pixels are not square"),
    ],
)
def test_other_towers_are_refused(vision: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        vision_config(tower("ViT-B-32", **vision))


@pytest.mark.parametrize(
    "vision", [{"ls_init_value": 0.1}, {"block_type": "custom", "scale_heads": True}]
)
def test_further_tensors_are_refused(vision: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="has no place in Hugging Face's CLIP image tower"):
        to_hugging_face(tower(**vision).state_dict())
