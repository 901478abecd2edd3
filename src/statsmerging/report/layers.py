"""The name of a tensor, taken apart: its block, its place in the block, and its kind."""

from __future__ import annotations

from dataclasses import dataclass

#: Kind of tensor → parts of a name that identify it; the first kind that matches holds.
_KINDS = {
    "attention": ("attn", "attention"),
    "MLP": ("mlp", "fc", "c_proj"),
    "normalisation": ("norm", "ln_", "bn", ".ln"),
    "convolution": ("conv", "downsample"),
}

#: Kind of all other tensors, and of a coefficient that all layers share.
OTHER = "other"

#: All kinds, in the order in which they are shown.
KINDS = (*_KINDS, OTHER)


@dataclass(frozen=True)
class LayerName:
    """A tensor's name, taken apart.

    Attributes:
        block: name of its block up to the block's number; empty outside of blocks.
        part: the rest of the name.
        kind: ``attention``, ``MLP``, ``normalisation``, ``convolution`` or ``other``.
    """

    block: str
    part: str
    kind: str


def layer_name(layer: str) -> LayerName:
    """``blocks.3.attn.qkv.weight`` → block ``blocks.3``, part ``attn.qkv.weight``, attention.

    In a residual network the stage is part of the block's name: ``layer2.0``.
    """
    words = layer.split(".")
    number = next((place for place, word in enumerate(words) if word.isdigit()), None)
    split = 0 if number is None or number == len(words) - 1 else number + 1
    block, part = ".".join(words[:split]), ".".join(words[split:])
    return LayerName(block, part, _kind(part) if block else OTHER)


def _kind(part: str) -> str:
    for kind, marks in _KINDS.items():
        if any(mark in part for mark in marks):
            return kind
    return OTHER
