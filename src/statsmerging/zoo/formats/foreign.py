"""Any foreign file or adapter folder as tensors our zoo reads: recognised, mapped, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statsmerging.merging.task_vectors import check_finite
from statsmerging.records.errors import UserError
from statsmerging.zoo.checkpoints import read_weights
from statsmerging.zoo.formats.clip_names import PROJECTION, Tower, find_tower, to_hugging_face
from statsmerging.zoo.formats.lora import CONFIG, WEIGHTS, Adapter
from statsmerging.zoo.formats.pickled import SUFFIXES, Pickled, read_pickled

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
    if source.is_dir():
        foreign = _read_adapter(source, base)
    else:
        content = read_file(source)
        foreign = _head(content) if _is_head(content) else _image_tower(content, base, str(source))
    check_finite(foreign.tensors, found=str(source))
    return foreign


def read_file(path: Path) -> Pickled:
    """The tensors of a file under their own names: safetensors, or a pickle that is not run."""
    if path.suffix in SUFFIXES:
        return read_pickled(path)
    return Pickled(read_weights(path), None, {})


def files_of(source: Path) -> list[Path]:
    """The files that make up a source."""
    return [source / CONFIG, source / WEIGHTS] if source.is_dir() else [source]


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
    tower = _find(content, found)
    tensors = tower.tensors
    if PROJECTION not in tensors:
        if base is None:
            raise UserError(f"{found} has no projection: give a base that has one (job.base)")
        tensors = {**tensors, PROJECTION: _projection(base, tensors)}
    return Foreign(tensors, tower.family, tower.dropped)


def _read_adapter(folder: Path, base: Mapping[str, Tensor] | None) -> Foreign:
    if base is None:
        raise UserError(f"{folder} holds an adapter: give the model it adapts (job.base)")
    adapter = Adapter.read(folder)
    # transformers 5 names the layers of a CLIPVisionModel without `vision_model.`, 4 with it.
    plain = to_hugging_face(find_tower(base).tensors, prefix="")
    merged = adapter.merge_into(plain, without="vision_model.")
    tower = _image_tower(Pickled(merged, None, {}), None, f"the base of {folder}")
    return Foreign(tower.tensors, ADAPTER)


def _projection(base: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    projection = find_tower(base).tensors.get(PROJECTION)
    width = tensors["class_embedding"].shape[0]
    if projection is None or projection.shape[0] != width:
        raise UserError(f"the base has no projection of features of width {width}")
    return projection


def _find(content: Pickled, found: str) -> Tower:
    try:
        return find_tower(content.tensors)
    except UserError as error:
        raise UserError(f"{found}: {error}") from error
