"""A small CLIP with a real vocabulary, and its tensors under Hugging Face's names."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import Tensor

from statsmerging.zoo.formats.clip_names import find_tower, to_hugging_face

CLIP_NAME = "ViT-B-32-quickgelu"
CLIP_ARGUMENTS: dict[str, Any] = {
    "embed_dim": 12,
    "vision_cfg": {
        "layers": 2,
        "width": 16,
        "head_width": 8,
        "patch_size": 8,
        "image_size": 16,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 8,
        "heads": 2,
        "layers": 1,
    },
}


def small_clip(seed: int = 0) -> Any:
    """open_clip's model, randomly initialised."""
    torch.manual_seed(seed)
    return open_clip.create_model(CLIP_NAME, pretrained=None, **CLIP_ARGUMENTS).eval()


def hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of open_clip's CLIP as ``CLIPModel`` names it."""
    text = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
    named = to_hugging_face(find_tower(state).tensors)
    for name, tensor in state.items():
        if name in text:
            named[f"text_model.{text[name]}"] = tensor
        elif name.startswith("transformer.resblocks."):
            layer, rest = name.removeprefix("transformer.resblocks.").split(".", 1)
            prefix = f"text_model.encoder.layers.{layer}."
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                    named[f"{prefix}self_attn.{part}_proj.{kind}"] = rows.clone()
            else:
                for ours, theirs in [
                    ("attn.out_proj", "self_attn.out_proj"),
                    ("ln_1", "layer_norm1"),
                    ("ln_2", "layer_norm2"),
                    ("mlp.c_fc", "mlp.fc1"),
                    ("mlp.c_proj", "mlp.fc2"),
                ]:
                    rest = rest.replace(ours, theirs)
                named[prefix + rest] = tensor
    named["text_projection.weight"] = state["text_projection"].T.contiguous()
    named["logit_scale"] = state["logit_scale"]
    return named
