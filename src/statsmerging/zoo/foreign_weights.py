"""Weights of others, given the backbone's names."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from statsmerging.errors import UserError, printable
from statsmerging.merging.bank import check_finite, check_same_tensors
from statsmerging.zoo.formats.clip_names import PROJECTION
from statsmerging.zoo.formats.foreign import (
    CLASSIFIERS,
    is_adapter,
    linear_layer,
    read_file,
    read_foreign,
)
from statsmerging.zoo.formats.lora import Adapter
from statsmerging.zoo.formats.wrappers import around, is_average, without_wrapper, wrapper_of
from statsmerging.zoo.heads import Head, head_from

log = logging.getLogger(__name__)

_POSITIONS = ("positional_embedding", "pos_embed")


def weights_for(
    backbone: nn.Module, source: Path, base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """State dict of a foreign source with the names and shapes of the backbone.

    Args:
        backbone: of timm, or the image tower of an open_clip model.
        source: weights of the same library, any CLIP that ``read_foreign`` knows, or the folder of
            a LoRA adapter. What training puts around a model is taken off.
        base: the pre-trained weights: an adapter changes them, and a CLIP image tower without a
            projection takes theirs.

    Raises:
        MergingError: names or shapes that do not match (names tensors and shapes), or NaN.
        UserError: a file that cannot be read, or names of no known family.
    """
    expected, found = backbone.state_dict(), printable(str(source))
    if {PROJECTION, "class_embedding"} <= set(expected):
        state: Mapping[str, Tensor] = read_foreign(source, base).tensors
    elif is_adapter(source):
        if base is None:
            raise UserError(f"{found}: an adapter is no pre-trained model")
        adapter = Adapter.read(source)
        saved = _backbone_alone(backbone, adapter.tensors)
        state = Adapter(adapter.config, saved).merge_into(base)
    else:
        whole = read_file(source).tensors
        wrapper = wrapper_of(whole, expected)
        if is_average(wrapper):
            log.warning("%s: its moving average, %s*, is read", found, wrapper)
        state = _library_names(backbone, without_wrapper(whole, wrapper), found)
    _check_positions(expected, state, found)
    check_same_tensors(expected, state, expected="backbone", found=found)
    check_finite(state, found=found)
    return dict(state)


def classifier_in(source: Path, backbone: nn.Module) -> Head | None:
    """The classifier that came with the weights of a timm backbone, as a head.

    Raises:
        UserError: a file that cannot be read, or two classifiers that are averaged.
    """
    state = Adapter.read(source).tensors if is_adapter(source) else read_file(source).tensors
    prefixes = around(wrapper_of(state, backbone.state_dict()))
    own = _classifiers(backbone)
    if len(own) > 1 and all(f"{prefixes[0]}{name}.weight" in state for name in own):
        raise UserError(f"{printable(str(source))}: {' and '.join(own)} together are no one head")
    names = [f"{prefix}{name}" for prefix in prefixes for name in (*own, *CLASSIFIERS)]
    layer = linear_layer(state, names)
    return None if layer is None else head_from(layer.tensors)


def _library_names(
    backbone: nn.Module, state: Mapping[str, Tensor], found: str
) -> Mapping[str, Tensor]:
    """Weights without their classifier, renamed and resampled as the library does."""
    # timm keeps each architecture's conversion of published weights beside the architecture.
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    adapted = convert(dict(state), backbone) if convert else state
    for name in _POSITIONS:
        if name in state and name in adapted and state[name].shape != adapted[name].shape:
            shapes = f"{tuple(state[name].shape)} to {tuple(adapted[name].shape)}"
            log.info("%s: %s is resampled from %s", found, name, shapes)
    named = _backbone_alone(backbone, adapted)
    # Older versions of torch did not count batches; nothing depends on the number.
    counters = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    return {**counters, **named}


def _backbone_alone(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that belong to no classifier."""
    expected = backbone.state_dict()
    classifiers = tuple(f"{name}." for name in (*_classifiers(backbone), *CLASSIFIERS))
    return {
        name: state[name] for name in state if name in expected or not name.startswith(classifiers)
    }


def _classifiers(backbone: nn.Module) -> tuple[str, ...]:
    """What timm calls the classifier of the architecture."""
    name = getattr(backbone, "default_cfg", {}).get("classifier", "head")
    return (name,) if isinstance(name, str) else tuple(name)


def _check_positions(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], found: str
) -> None:
    for name in _POSITIONS:
        if name in expected and name in state:
            ours, theirs = (weights[name].shape for weights in (expected, state))
            if len(ours) == len(theirs) and ours != theirs and ours[-1] == theirs[-1]:
                raise UserError(
                    f"{found} has embeddings of {theirs[-2]} positions, the backbone of "
                    f"{ours[-2]}: it was trained on images or patches of another size; choose the "
                    "backbone and the image_size of its training"
                )
