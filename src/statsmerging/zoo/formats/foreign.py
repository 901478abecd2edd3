"""Weights of other projects with the names of the backbone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from statsmerging.errors import UserError, printable
from statsmerging.merging.bank import check_finite, check_same_tensors
from statsmerging.zoo.formats.checkpoints import (
    is_adapter,
    is_average,
    read_file,
    without_wrapper,
    wrapper_of,
)
from statsmerging.zoo.formats.clip_names import (
    FAMILIES,
    PROJECTION,
    Tower,
    find_tower,
    to_hugging_face,
)
from statsmerging.zoo.formats.lora import Adapter
from statsmerging.zoo.formats.pickled import Pickled

HEAD, ADAPTER = "classification head", "PEFT LoRA adapter"


#: A tensor that marks the state of a head that normalises its features.
NORMALISES = "normalises_features"


@dataclass(frozen=True)
class Foreign:
    """What was found.

    Attributes:
        tensors: an open_clip image tower, or a head as ``read_head`` reads it.
        family: what the source is.
        dropped: names of tensors of the source that are not among them.
        facts: further things the source says; ``normalize`` of a head tells whether the features
            are divided by their norm before it (``None`` where the source does not say).
    """

    tensors: dict[str, Tensor]
    family: str
    dropped: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def read_foreign(source: Path, base: Mapping[str, Tensor] | None = None) -> Foreign:
    """Read CLIP's image tower or a head of any known family.

    Args:
        source: ``.safetensors``, ``.pt``, ``.pth``, ``.bin``, or a folder with a LoRA adapter.
        base: state dict of the model the source was made from, of any known family: an adapter
            changes it, and a ``CLIPVisionModel``, which has no projection, gets its projection.

    Raises:
        UserError: a broken or unknown source, or a base that is missing or does not fit.
        MergingError: NaN or infinite weights (names the tensor).
    """
    found = printable(str(source))
    if is_adapter(source):
        foreign = _read_adapter(source, base)
    else:
        content = read_file(source)
        foreign = _head(content) if _is_head(content) else _image_tower(content, base, found)
    check_finite(foreign.tensors, found=found)
    return foreign


#: What libraries call a classifier besides the name that an architecture says itself.
CLASSIFIERS = ("head.fc", "head", "fc", "classifier", "heads.head", "linear", "last_linear")


def _is_head(content: Pickled) -> bool:
    tensors = content.tensors
    return set(tensors) == {"weight", "bias"} and tensors["weight"].dim() == 2


def _head(content: Pickled) -> Foreign:
    normalize = content.attributes.get("normalize")
    tensors = dict(content.tensors)
    if normalize:
        tensors[NORMALISES] = torch.ones(1)
    return Foreign(tensors, HEAD, facts={"normalize": normalize})


def _image_tower(content: Pickled, base: Mapping[str, Tensor] | None, found: str) -> Foreign:
    tower = _find(content.tensors, found)
    tensors = tower.tensors
    if PROJECTION not in tensors:
        if base is None:
            raise UserError(f"{found} has no projection: give a base that has one (job.base)")
        tensors = {**tensors, PROJECTION: _projection(base, tensors)}
    return Foreign(tensors, tower.family, tower.dropped)


def _read_adapter(folder: Path, base: Mapping[str, Tensor] | None) -> Foreign:
    if base is None:
        raise UserError(
            f"{printable(str(folder))} holds an adapter: give the model it adapts (job.base)"
        )
    adapter = Adapter.read(folder)
    # transformers 5 names the layers of a CLIPVisionModel without `vision_model.`, 4 with it.
    plain = to_hugging_face(_find(base, "the base").tensors, prefix="")
    merged = adapter.merge_into(plain, without="vision_model.")
    tower = _image_tower(Pickled(merged), None, f"the base of {printable(str(folder))}")
    return Foreign(tower.tensors, ADAPTER)


def _projection(base: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    projection = _find(base, "the base").tensors.get(PROJECTION)
    width = tensors["class_embedding"].shape[0]
    if projection is None or projection.shape[0] != width:
        raise UserError(f"the base has no projection of features of width {width}")
    return projection


def _find(state: Mapping[str, Tensor], found: str) -> Tower:
    """The tower behind whatever training put before its names."""
    wrapper = wrapper_of(state, [family.marker for family in FAMILIES])
    try:
        tower = find_tower(without_wrapper(state, wrapper))
    except UserError as error:
        raise UserError(f"{found}: {error}") from error
    outside = [name for name in state if not name.startswith(wrapper)]
    inside = [f"{wrapper}{name}" for name in tower.dropped]
    return Tower(tower.tensors, tower.family, (*outside, *inside))


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
    classifiers = tuple(f"{name}." for name in (*classifier_names(backbone), *CLASSIFIERS))
    return {
        name: state[name] for name in state if name in expected or not name.startswith(classifiers)
    }


def classifier_names(backbone: nn.Module) -> tuple[str, ...]:
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
