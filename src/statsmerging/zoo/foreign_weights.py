"""Weights of others, given the backbone's names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from statsmerging.merging.task_vectors import check_finite, check_same_tensors
from statsmerging.records.errors import UserError
from statsmerging.zoo.formats.clip_names import PROJECTION
from statsmerging.zoo.formats.foreign import read_file, read_foreign
from statsmerging.zoo.formats.lora import Adapter
from statsmerging.zoo.heads import Head


def weights_for(
    backbone: nn.Module, source: Path, base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """State dict of a foreign source with the names and shapes of the backbone.

    Args:
        backbone: of timm, or the image tower of an open_clip model.
        source: published weights of the same library, any CLIP that ``read_foreign`` knows, or
            the folder of a LoRA adapter.
        base: the pre-trained weights: an adapter changes them, and a CLIP image tower without a
            projection takes theirs.

    Raises:
        MergingError: names or shapes that do not match (names tensors and shapes), or NaN.
        UserError: a file that cannot be read, or names of no known family.
    """
    expected = backbone.state_dict()
    if {PROJECTION, "class_embedding"} <= set(expected):
        state: Mapping[str, Tensor] = read_foreign(source, base).tensors
    elif source.is_dir():
        if base is None:
            raise UserError(f"{source}: an adapter is no pre-trained model")
        state = Adapter.read(source).merge_into(base)
    else:
        state = _library_names(backbone, read_file(source).tensors)
    check_same_tensors(expected, state, expected="backbone", found=str(source))
    check_finite(state, found=str(source))
    return dict(state)


def classifier_in(source: Path, backbone: nn.Module) -> Head:
    """The classifier that published weights of a timm backbone came with, as a head.

    Raises:
        UserError: there is none, or it is no linear layer.
    """
    state = read_file(source).tensors
    for name in _classifier_names(backbone):
        if {f"{name}.weight", f"{name}.bias"} <= set(state) and state[f"{name}.weight"].dim() == 2:
            return Head(state[f"{name}.weight"], state[f"{name}.bias"])
    expected = " or ".join(f"{name}.weight, {name}.bias" for name in _classifier_names(backbone))
    raise UserError(f"{source}: an expert needs backbone.* and head.*, or a classifier {expected}")


def _library_names(backbone: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Published weights without their classifier, renamed and resampled as the library does."""
    # timm keeps each architecture's conversion of published weights beside the architecture.
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    adapted = convert(dict(state), backbone) if convert else state
    expected = backbone.state_dict()
    names = _classifier_names(backbone)
    return {
        name: tensor
        for name, tensor in adapted.items()
        if name in expected or not name.startswith(names)
    }


def _classifier_names(backbone: nn.Module) -> tuple[str, ...]:
    """What timm calls the classifier of the architecture."""
    name = getattr(backbone, "default_cfg", {}).get("classifier", "head")
    return (name,) if isinstance(name, str) else tuple(name)
