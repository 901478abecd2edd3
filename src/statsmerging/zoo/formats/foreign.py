"""Weights of other projects with the names of the backbone."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from statsmerging.errors import UserError, printable
from statsmerging.merging.state_dicts import check_finite, check_same_tensors
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

log = logging.getLogger(__name__)

HEAD, ADAPTER = "classification head", "PEFT LoRA adapter"

#: A tensor that marks the state of a head that normalises its features.
NORMALISES = "normalises_features"

#: Usual names of a classifier, besides the name that timm records for an architecture.
CLASSIFIERS = ("head.fc", "head", "fc", "classifier", "heads.head", "linear", "last_linear")

#: Names of position embeddings, in open_clip and in timm.
_POSITIONS = ("positional_embedding", "pos_embed")


@dataclass(frozen=True)
class Foreign:
    """The content of a foreign source under names of this project.

    Attributes:
        tensors: an open_clip image tower, or a head as ``read_head`` reads it.
        family: the kind of the source, for messages.
        dropped: names of the source's tensors that are not in ``tensors``.
        normalises: whether a head divides the features by their norm first; ``None`` where the
            source does not record it.
    """

    tensors: dict[str, Tensor]
    family: str
    dropped: tuple[str, ...] = ()
    normalises: bool | None = None


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
        if base is None:
            raise UserError(f"{found} holds an adapter: give the model it adapts (job.base)")
        adapter = Adapter.read(source)
        # transformers 5 names the layers of a CLIPVisionModel without `vision_model.`, 4 with it.
        plain = to_hugging_face(_image_tower(base, "the base").tensors, prefix="")
        merged = adapter.merge_into(plain, without="vision_model.")
        tower = _with_projection(merged, None, f"the base of {found}")
        foreign = Foreign(tower.tensors, ADAPTER)
    else:
        content = read_file(source)
        tensors = dict(content.tensors)
        if set(tensors) == {"weight", "bias"} and tensors["weight"].dim() == 2:
            recorded = content.attributes.get("normalize")
            if recorded:
                tensors[NORMALISES] = torch.ones(1)
            normalises = None if recorded is None else bool(recorded)
            foreign = Foreign(tensors, HEAD, normalises=normalises)
        else:
            tower = _with_projection(content.tensors, base, found)
            foreign = Foreign(tower.tensors, tower.family, tower.dropped)
    check_finite(foreign.tensors, found=found)
    return foreign


def _with_projection(
    state: Mapping[str, Tensor], base: Mapping[str, Tensor] | None, found: str
) -> Tower:
    """The tower of a state dict, with the projection of the base where it has none."""
    tower = _image_tower(state, found)
    if PROJECTION in tower.tensors:
        return tower
    if base is None:
        raise UserError(f"{found} has no projection: give a base that has one (job.base)")
    projection = _image_tower(base, "the base").tensors.get(PROJECTION)
    width = tower.tensors["class_embedding"].shape[0]
    if projection is None or projection.shape[0] != width:
        raise UserError(f"the base has no projection of features of width {width}")
    return replace(tower, tensors={**tower.tensors, PROJECTION: projection})


def _image_tower(state: Mapping[str, Tensor], found: str) -> Tower:
    """The tower in a state dict, behind whatever prefix training put before its names."""
    wrapper = wrapper_of(state, [family.marker for family in FAMILIES])
    try:
        tower = find_tower(without_wrapper(state, wrapper))
    except UserError as error:
        raise UserError(f"{found}: {error}") from error
    outside = [name for name in state if not name.startswith(wrapper)]
    inside = [f"{wrapper}{name}" for name in tower.dropped]
    return replace(tower, dropped=(*outside, *inside))


def weights_for(
    backbone: nn.Module, source: Path, base: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """State dict of a foreign source with the names and shapes of the backbone.

    Args:
        backbone: of timm, or the image tower of an open_clip model.
        source: weights of the same library, any CLIP that ``read_foreign`` knows, or the folder of
            a LoRA adapter. Prefixes that training puts before the names are removed.
        base: the pre-trained weights: an adapter changes them, and a CLIP image tower without a
            projection gets theirs.

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
        without_head = _without_classifiers(adapter.tensors, backbone)
        state = Adapter(adapter.config, without_head).merge_into(base)
    else:
        whole = read_file(source).tensors
        wrapper = wrapper_of(whole, expected)
        if is_average(wrapper):
            log.warning("%s: its moving average, %s*, is read", found, wrapper)
        state = _in_names_of_timm(without_wrapper(whole, wrapper), backbone, found)
    for name in _POSITIONS:
        if name in expected and name in state:
            ours, theirs = expected[name].shape, state[name].shape
            if len(ours) == len(theirs) and ours != theirs and ours[-1] == theirs[-1]:
                raise UserError(
                    f"{found} has embeddings of {theirs[-2]} positions, the backbone of "
                    f"{ours[-2]}: it was trained on images or patches of another size; choose the "
                    "backbone and the image_size of its training"
                )
    check_same_tensors(expected, state, expected="backbone", found=found)
    check_finite(state, found=found)
    return dict(state)


def _in_names_of_timm(
    state: Mapping[str, Tensor], backbone: nn.Module, found: str
) -> dict[str, Tensor]:
    """Weights without their classifier, renamed and resampled by timm's own conversion."""
    # timm keeps each architecture's conversion of published weights beside the architecture.
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    converted = convert(dict(state), backbone) if convert else state
    for name in _POSITIONS:
        if name in state and name in converted and state[name].shape != converted[name].shape:
            shapes = f"{tuple(state[name].shape)} to {tuple(converted[name].shape)}"
            log.info("%s: %s is resampled from %s", found, name, shapes)
    # Older versions of torch did not count batches; no output depends on the number.
    counters = {
        name: tensor
        for name, tensor in backbone.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    return {**counters, **_without_classifiers(converted, backbone)}


def _without_classifiers(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """The tensors that belong to no classifier."""
    expected = backbone.state_dict()
    classifiers = tuple(f"{name}." for name in (*classifier_names(backbone), *CLASSIFIERS))
    return {
        name: state[name] for name in state if name in expected or not name.startswith(classifiers)
    }


def classifier_names(backbone: nn.Module) -> tuple[str, ...]:
    """The names that timm records for the classifiers of the architecture."""
    name = getattr(backbone, "default_cfg", {}).get("classifier", "head")
    return (name,) if isinstance(name, str) else tuple(name)
