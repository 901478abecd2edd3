"""Tensor names of CLIP: from Hugging Face's to open_clip's and back, without rounding.

The backbones are open_clip's image towers (`model.visual`). Hugging Face's differ in three points:
the names, the attention's projections (open_clip stacks query, key and value into one `in_proj`),
and the last projection, which open_clip stores transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from statsmerging.errors import UserError, shown

State = Mapping[str, Tensor]

PROJECTION, _HF_PROJECTION = "proj", "visual_projection.weight"

_POSITIONS = "embeddings.position_ids"


@dataclass(frozen=True)
class Family:
    """A convention for the names of an image tower's tensors.

    Attributes:
        title: its name in messages.
        prefix: the prefix of the tower's tensors; other tensors are no part of the tower.
        hugging_face: whether the names after the prefix are Hugging Face's; otherwise open_clip's.
    """

    title: str
    prefix: str
    hugging_face: bool

    @property
    def marker(self) -> str:
        """Name of a tensor that only this family has."""
        name = "embeddings.patch_embedding.weight" if self.hugging_face else "class_embedding"
        return f"{self.prefix}{name}"


FAMILIES = (
    Family("open_clip image tower", "", hugging_face=False),
    Family("open_clip CLIP", "visual.", hugging_face=False),
    Family("task_vectors image encoder", "model.visual.", hugging_face=False),
    Family("Hugging Face CLIP", "vision_model.", hugging_face=True),
    Family("Hugging Face CLIPVisionModel", "", hugging_face=True),
)

# Hugging Face's name → open_clip's; the misspelling is theirs.
_OUTER = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}

_IN_BLOCK = {
    "layer_norm1": "ln_1",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}

_STACKED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_HF_BLOCK = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")
_IN_PROJECTION = "attn.in_proj"


@dataclass(frozen=True)
class Tower:
    """An image tower found in a foreign state dict.

    Attributes:
        tensors: with open_clip's names; without ``proj`` where the source has none.
        family: title of the family of names.
        dropped: names of the tensors that are no part of the tower.
    """

    tensors: dict[str, Tensor]
    family: str
    dropped: tuple[str, ...]


def find_tower(state: State) -> Tower:
    """The image tower of any known family, with the names of open_clip's ``model.visual``.

    Raises:
        UserError: unknown names (the first three are shown), or an incomplete tower.
    """
    family = next((family for family in FAMILIES if family.marker in state), None)
    if family is None:
        names = ", ".join(shown(name) for name in list(state)[:3]) or "none"
        known = ", ".join(family.title for family in FAMILIES)
        raise UserError(f"tensor names {names} … are of no known family; known are {known}")
    own = {
        name.removeprefix(family.prefix): tensor
        for name, tensor in state.items()
        if _belongs(name, family)
    }
    dropped = tuple(name for name in state if not _belongs(name, family))
    if family.hugging_face:
        if _HF_PROJECTION in state:
            own[_HF_PROJECTION] = state[_HF_PROJECTION]
        own = _from_hugging_face(own)
    return Tower(own, family.title, dropped)


def to_hugging_face(tower: State, *, prefix: str = "vision_model.") -> dict[str, Tensor]:
    """The inverse of ``find_tower``: Hugging Face's names for a tower with open_clip's.

    With ``proj`` it is a `CLIPVisionModelWithProjection`, without a `CLIPVisionModel`.

    Args:
        tower: tensors of open_clip's ``model.visual``.
        prefix: before all names but that of the last projection.

    Raises:
        UserError: a tensor Hugging Face's architecture does not have.
    """
    outer = {ours: theirs for theirs, ours in _OUTER.items()}
    in_block = {ours: theirs for theirs, ours in _IN_BLOCK.items()}
    named: dict[str, Tensor] = {}
    for name, tensor in tower.items():
        block = _BLOCK.fullmatch(name)
        if name == PROJECTION:
            named[_HF_PROJECTION] = tensor.T.contiguous()
        elif name in outer:
            named[f"{prefix}{outer[name]}"] = tensor
        elif block and block[2] == _IN_PROJECTION:
            for part, rows in zip(_STACKED, tensor.chunk(3), strict=True):
                named[f"{prefix}encoder.layers.{block[1]}.{part}.{block[3]}"] = rows.contiguous()
        elif block and block[2] in in_block:
            named[f"{prefix}encoder.layers.{block[1]}.{in_block[block[2]]}.{block[3]}"] = tensor
        else:
            raise UserError(f"tensor {shown(name)} has no place in Hugging Face's CLIP image tower")
    return named


def blocks_from_hugging_face(state: State, outer: Mapping[str, str]) -> dict[str, Tensor]:
    """open_clip's names for the blocks of either tower, and for the tensors around them.

    Args:
        state: tensors of one tower, without its projection.
        outer: Hugging Face's name → open_clip's, for what is in no block.

    Raises:
        UserError: a tensor open_clip's architecture does not have.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        block = _HF_BLOCK.fullmatch(name)
        if name in outer:
            named[outer[name]] = tensor
        elif block and block[2] in _IN_BLOCK:
            named[f"transformer.resblocks.{block[1]}.{_IN_BLOCK[block[2]]}.{block[3]}"] = tensor
        elif block and block[2] in _STACKED:
            ours = f"transformer.resblocks.{block[1]}.{_IN_PROJECTION}_{block[3]}"
            if ours not in named:
                named[ours] = _stacked(state, block[1], block[3])
        else:
            raise UserError(f"tensor {shown(name)} has no place in open_clip's CLIP")
    return named


def _belongs(name: str, family: Family) -> bool:
    """Whether a tensor is part of the image tower."""
    if family.hugging_face and name == _HF_PROJECTION:
        return True
    # Older files hold the indices 0 … N of the positions, which are no weights.
    return name.startswith(family.prefix) and not name.endswith(_POSITIONS)


def _from_hugging_face(state: State) -> dict[str, Tensor]:
    rest = {name: tensor for name, tensor in state.items() if name != _HF_PROJECTION}
    named = blocks_from_hugging_face(rest, _OUTER)
    if _HF_PROJECTION in state:
        named[PROJECTION] = state[_HF_PROJECTION].T.contiguous()
    return named


def _stacked(state: State, layer: str, kind: str) -> Tensor:
    """Query, key and value of one layer: 3D × D weights or 3D biases."""
    names = [f"encoder.layers.{layer}.{part}.{kind}" for part in _STACKED]
    missing = [name for name in names if name not in state]
    if missing:
        raise UserError(f"tensor {shown(missing[0])} is missing beside its query, key and value")
    return torch.cat([state[name] for name in names])


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


_LOGIT_SCALE = "logit_scale"

_TEXT = "text_model."

_TEXT_PROJECTION = "text_projection.weight"

_TOKENS = "token_embedding.weight"

#: Tensors that only a whole CLIP has, of open_clip and of Hugging Face.
WHOLE_CLIP = (_TOKENS, _TEXT_PROJECTION)


# Hugging Face's name → open_clip's; the blocks of both towers are alike.
_CLIP_OUTER = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def whole_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of open_clip's ``CLIP`` from Hugging Face's ``CLIPModel`` or from itself.

    Raises:
        UserError: no text tower among the tensors.
    """
    if _TOKENS in state:
        return dict(state)
    if _TEXT_PROJECTION not in state:
        raise UserError("these weights have no text tower; zero-shot heads need the whole CLIP")
    image = {f"visual.{name}": tensor for name, tensor in find_tower(state).tensors.items()}
    text = {
        name.removeprefix(_TEXT): tensor
        for name, tensor in state.items()
        if name.startswith(_TEXT) and not name.endswith(_POSITIONS)
    }
    return {
        **image,
        **blocks_from_hugging_face(text, _CLIP_OUTER),
        "text_projection": state[_TEXT_PROJECTION].T.contiguous(),
        _LOGIT_SCALE: state[_LOGIT_SCALE],
    }
