"""State dicts and whole modules that were pickled with `torch.save`, read without running them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statsmerging.records.errors import UserError, shown
from statsmerging.zoo.formats.inert_pickle import Built, Name, Persistent, PickleError, read_pickle
from statsmerging.zoo.formats.torch_archive import TorchArchive

SUFFIXES = (".pt", ".pth", ".bin")

_STORAGES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
}
_MAPPING = "collections.OrderedDict"
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"

#: What pickles of the CLIP and `task_vectors` families name. A name is not looked up, so this
#: list decides only what is read on and what ends in a message.
_NAMES = (_MAPPING, "__builtin__.set", _TENSOR, _PARAMETER, *_STORAGES)
_MODULES = ("src.modeling.", "open_clip.", "torch.nn.", "torchvision.transforms.")

#: Dimensions a tensor may have.
MAX_DIMENSIONS = 8

#: Letters a name may have: one long name, repeated at every level, would fill the memory.
MAX_NAME = 1000


@dataclass(frozen=True)
class Pickled:
    """The content of a file.

    Attributes:
        tensors: state dict.
        maker: class of a pickled module, ``None`` for a state dict.
        attributes: plain values of a pickled module, such as ``training``.
    """

    tensors: Mapping[str, Tensor]
    maker: str | None
    attributes: dict[str, Any]


def read_pickled(path: Path) -> Pickled:
    """Read a pickled state dict (also one nested under ``state_dict``) or a pickled module.

    Raises:
        UserError: a broken or hostile file; one line that says what is wrong. No code of the
            file has run then, and memory was taken in proportion to the bytes of the file alone.
    """
    with TorchArchive(path) as archive:
        try:
            root = read_pickle(archive.program(), _allowed)
            return _content(root, _Tensors(archive))
        except PickleError as error:
            raise UserError(f"{path}: {error}; nothing of it was run") from error


def _allowed(name: str) -> bool:
    return name in _NAMES or name.startswith(_MODULES)


def _content(root: Any, tensors: _Tensors) -> Pickled:
    if isinstance(root, Built) and root.maker != _MAPPING:
        attributes = {
            name: value
            for name, value in _mapping(root.state, f"the state of {shown(root.maker)}").items()
            if isinstance(value, bool | int | float | str)
        }
        state = {name: tensors.read(name, node) for name, node in _module_tensors(root)}
        return Pickled(state, root.maker, attributes)
    entries = _mapping(root, "its content")
    if "state_dict" in entries:
        entries = _mapping(entries["state_dict"], "state_dict")
    return Pickled({name: tensors.read(name, node) for name, node in entries.items()}, None, {})


def _module_tensors(root: Built) -> Iterator[tuple[str, Any]]:
    """Name and description of every tensor the module's ``state_dict()`` would hold."""
    seen: set[int] = set()

    def once(node: Any, what: str) -> Any:
        # Parts that hold each other would be walked without end.
        if node is not None and id(node) in seen:
            raise PickleError(f"{what} stands in it twice")
        seen.add(id(node))
        return node

    pending: list[tuple[str, Any]] = [("", root)]
    while pending:
        name, module = pending.pop()
        if len(name) > MAX_NAME:
            raise PickleError(f"module {shown(name)} has a name of more than {MAX_NAME} letters")
        state = _mapping(once(getattr(module, "state", None), f"module {shown(name)}"), "a module")
        parts = {
            part: once(state.get(part), f"{part} of {shown(name)}")
            for part in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
        }
        transient = _members(parts["_non_persistent_buffers_set"])
        for part in ("_parameters", "_buffers"):
            for key, node in _mapping(parts[part], f"{part} of {shown(name)}").items():
                if node is not None and key not in transient:
                    yield f"{name}{key}", node
        for key, child in _mapping(parts["_modules"], f"_modules of {shown(name)}").items():
            if child is not None:
                pending.append((f"{name}{key}.", child))


def _mapping(node: Any, what: str) -> Mapping[str, Any]:
    items: Any = node.items if isinstance(node, Built) and node.maker == _MAPPING else node
    if not isinstance(items, dict) or not all(
        isinstance(key, str) and len(key) <= MAX_NAME for key in items
    ):
        raise PickleError(f"{what} is no mapping of names")
    return items


def _members(node: Any) -> set[str]:
    """Names in a pickled set; none in anything else."""
    match node:
        case Built(maker="__builtin__.set", arguments=(list(values),)):
            return {value for value in values if isinstance(value, str)}
    return set()


class _Tensors:
    """Makes tensors from their descriptions, each checked against the storage it lies in."""

    def __init__(self, archive: TorchArchive) -> None:
        self.archive = archive
        self.storages: dict[tuple[str, str], Tensor] = {}
        self.room = archive.path.stat().st_size

    def read(self, name: str, node: Any) -> Tensor:
        """The tensor; no two share memory, which safetensors could not store."""
        if isinstance(node, Built) and node.maker == _PARAMETER and node.arguments:
            node = node.arguments[0]
        if not isinstance(node, Built) or node.maker != _TENSOR or len(node.arguments) < 4:
            raise PickleError(f"{shown(name)} is no tensor")
        known = len(self.storages)
        storage = self._storage(name, node.arguments[0])
        offset, size, stride = node.arguments[1:4]
        if not _fits(offset, size, stride, storage.numel()):
            raise PickleError(f"tensor {shown(name)} does not fit into its storage")
        self.room -= math.prod(size) * storage.itemsize
        if self.room < 0:
            raise PickleError("its tensors together are larger than the file")
        view = storage.as_strided(size, stride, offset)
        return view if len(self.storages) > known else view.clone()

    def _storage(self, name: str, node: Any) -> Tensor:
        identity = node.identity if isinstance(node, Persistent) else None
        match identity:
            case ("storage", Name(kind), str(key), str(), int(elements)) if kind in _STORAGES:
                if (kind, key) not in self.storages:
                    read = self.archive.storage(key, _STORAGES[kind], elements)
                    self.storages[kind, key] = read
                return self.storages[kind, key]
        raise PickleError(f"tensor {shown(name)} has no storage")


def _fits(offset: Any, size: Any, stride: Any, elements: int) -> bool:
    """Whether the strided view lies inside the storage and repeats none of it."""
    if not (isinstance(size, tuple) and isinstance(stride, tuple)):
        return False
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        return False
    if not all(isinstance(value, int) and value >= 0 for value in (offset, *size, *stride)):
        return False
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return 0 < math.prod(size) <= elements and last < elements
