"""A CLIP image tower as the folder that `transformers` loads, written without `transformers`."""

from __future__ import annotations

from typing import Any

from torch import nn

from statsmerging.records.errors import UserError

#: Activation of open_clip's blocks → its name in `transformers`.
_ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu"}


def vision_config(tower: nn.Module) -> dict[str, Any]:
    """``config.json`` of a `CLIPVisionModelWithProjection` that computes what the tower does.

    Keys: https://huggingface.co/docs/transformers/model_doc/clip#transformers.CLIPVisionConfig

    Args:
        tower: open_clip's ``VisionTransformer``.

    Raises:
        UserError: a tower that architecture cannot express.
    """
    kind = f"{type(tower).__module__}.{type(tower).__name__}"
    if kind != "open_clip.transformer.VisionTransformer":
        raise UserError(f"{kind} is no CLIP vision transformer")
    visual: Any = tower
    block = visual.transformer.resblocks[0]
    pooled_elsewhere = visual.attn_pool is not None or visual.pool_type != "tok"
    if pooled_elsewhere or not isinstance(visual.ln_pre, nn.LayerNorm):
        raise UserError("its pooling or its first normalisation is not that of CLIP")
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": visual.conv1.out_channels,
        "intermediate_size": block.mlp.c_fc.out_features,
        "projection_dim": visual.output_dim,
        "num_hidden_layers": len(visual.transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "num_channels": visual.conv1.in_channels,
        "image_size": _side(visual.image_size),
        "patch_size": _side(visual.patch_size),
        "hidden_act": _activation(block.mlp.gelu),
        "layer_norm_eps": visual.ln_post.eps,
        "attention_dropout": 0.0,
    }


def _activation(module: nn.Module) -> str:
    name = _ACTIVATIONS.get(type(module).__name__)
    if name is None or getattr(module, "approximate", "none") != "none":
        raise UserError(f"its activation {module} is not one of CLIP's")
    return name


def _side(size: tuple[int, int]) -> int:
    if size[0] != size[1]:
        raise UserError(f"images or patches of {size[0]} × {size[1]} pixels are not square")
    return size[0]
