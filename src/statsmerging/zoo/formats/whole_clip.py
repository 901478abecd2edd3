"""The whole CLIP, both towers, under open_clip's names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from statsmerging.records.errors import UserError
from statsmerging.zoo.formats.clip_names import blocks_from_hugging_face, find_tower

_LOGIT_SCALE = "logit_scale"
_TEXT = "text_model."
_TEXT_PROJECTION = "text_projection.weight"
_TOKENS = "token_embedding.weight"

#: Tensors that only a whole CLIP has, of open_clip and of Hugging Face.
WHOLE_CLIP = (_TOKENS, _TEXT_PROJECTION)

# Hugging Face's name → open_clip's; the blocks of both towers are alike.
_OUTER = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_POSITIONS = "embeddings.position_ids"


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
        **blocks_from_hugging_face(text, _OUTER),
        "text_projection": state[_TEXT_PROJECTION].T.contiguous(),
        _LOGIT_SCALE: state[_LOGIT_SCALE],
    }
