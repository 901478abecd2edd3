"""Any foreign file or adapter folder as tensors our zoo reads: recognised, mapped, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statsmerging.errors import UserError, printable, shown
from statsmerging.merging.bank import check_finite
from statsmerging.store.received import is_plain_name, received_file, received_json
from statsmerging.zoo.formats.clip_names import (
    FAMILIES,
    PROJECTION,
    Tower,
    find_tower,
    to_hugging_face,
)
from statsmerging.zoo.formats.lora import CONFIG, WEIGHTS, Adapter
from statsmerging.zoo.formats.pickled import SUFFIXES, Pickled, read_pickled
from statsmerging.zoo.formats.wrappers import without_wrapper, wrapper_of
from statsmerging.zoo.weights import read_weights

#: Files of whole weights in a folder that a library wrote, the first that is there counts.
_IN_FOLDERS = (
    *("model.safetensors.index.json", "model.safetensors", "open_clip_model.safetensors"),
    *("pytorch_model.bin.index.json", "pytorch_model.bin", "open_clip_pytorch_model.bin"),
)


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


def linear_layer(state: Mapping[str, Tensor], names: Iterable[str]) -> Foreign | None:
    """The first layer of these names that is linear, as a head; its bias may be missing."""
    for name in names:
        prefix = f"{name}." if name else ""
        weight = f"{prefix}weight"
        if weight in state and state[weight].dim() == 2:
            tensors = {"weight": state[weight]}
            if f"{prefix}bias" in state:
                tensors["bias"] = state[f"{prefix}bias"]
            return Foreign(tensors, HEAD)
    return None


def is_adapter(source: Path) -> bool:
    """Whether a source is the folder of an adapter."""
    return (source / CONFIG).exists()


def read_file(source: Path) -> Pickled:
    """The tensors of a source under their own names: safetensors, or a pickle that is not run.

    Args:
        source: a file, the index of a sharded one, or a folder that holds either.
    """
    path = _weights_file(source)
    if path.name.endswith(INDEX):
        return Pickled(Shards(path, lambda shard: read_file(shard).tensors))
    if path.name.endswith(SUFFIXES):
        return read_pickled(path)
    return Pickled(read_weights(path))


def files_of(source: Path) -> list[Path]:
    """The files that make up a source."""
    if is_adapter(source):
        return [source / CONFIG, source / WEIGHTS]
    path = _weights_file(source)
    return [path, *shards_of(path)] if path.name.endswith(INDEX) else [path]


def _weights_file(source: Path) -> Path:
    if not source.is_dir():
        return source
    found = next((name for name in _IN_FOLDERS if (source / name).exists()), None)
    if found is None:
        known = ", ".join((CONFIG, *_IN_FOLDERS))
        raise UserError(f"{printable(str(source))} is a folder without weights: none of {known}")
    return received_file(source, found)


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


INDEX = ".index.json"


class Shards(Mapping[str, Tensor]):
    """The tensors of all shards of an index; each file is opened once.

    Args:
        index: ``model.safetensors.index.json``, or of another name that ends so.
        read: gives the tensors of one file.

    Raises:
        UserError: no whole index, a shard that is missing, or a tensor that is not in its shard.
    """

    def __init__(self, index: Path, read: Callable[[Path], Mapping[str, Tensor]]) -> None:
        self._files = _weight_map(index)
        self._shards = {
            file: read(received_file(index.parent, file))
            for file in dict.fromkeys(self._files.values())
        }
        for name, file in self._files.items():
            if name not in self._shards[file]:
                raise UserError(f"{printable(str(index))}: {shown(file)} holds no {shown(name)}")

    def __getitem__(self, name: str) -> Tensor:
        return self._shards[self._files[name]][name]

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def shards_of(index: Path) -> list[Path]:
    """The files an index names, which lie beside it."""
    return [
        received_file(index.parent, file) for file in dict.fromkeys(_weight_map(index).values())
    ]


def _weight_map(index: Path) -> dict[str, str]:
    content = received_json(index.parent, index.name)
    files: Any = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise UserError(f"{printable(str(index))} is no index of shards: it has no weight_map")
    for file in files.values():
        if not isinstance(file, str) or not is_plain_name(file) or file.endswith(INDEX):
            raise UserError(
                f"{printable(str(index))}: {shown(str(file))} is no name of a file beside it"
            )
    return files
