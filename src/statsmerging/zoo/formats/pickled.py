"""State dicts and whole modules that were pickled with `torch.save`, read without running them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from statsmerging.errors import UserError, shown
from statsmerging.zoo.formats.inert_pickle import Built, Name, Persistent, PickleError, read_pickle
from statsmerging.zoo.formats.torch_archive import TorchArchive
from statsmerging.zoo.weights import MAX_DIMENSIONS

log = logging.getLogger(__name__)


SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".th", ".pth.tar")


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
    "torch.BoolStorage": torch.bool,
}


# Types without a typed storage: the storage is untyped, and the tensor names the type.
_TYPES = {
    "torch.float8_e4m3fn": torch.float8_e4m3fn,
    "torch.float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "torch.float8_e5m2": torch.float8_e5m2,
    "torch.float8_e5m2fnuz": torch.float8_e5m2fnuz,
}


_UNTYPED = "torch.storage.UntypedStorage"

_MAPPING = "collections.OrderedDict"

_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"

_YOUNG_TENSOR = "torch._utils._rebuild_tensor_v3"

#: Names in pickles of the CLIP and `task_vectors` families and, in the second rows, of objects that
#: training stores beside the weights. No name is imported: the list only decides whether reading
#: goes on or ends in a message.
_NAMES = (
    *(_MAPPING, "__builtin__.set", _TENSOR, _PARAMETER, *_STORAGES, _YOUNG_TENSOR, _UNTYPED),
    *("argparse.Namespace", "collections.defaultdict", "collections.Counter", "_codecs.encode"),
    *(f"__builtin__.{kind}" for kind in ("dict", "list", "tuple", "int", "long", "float", "str")),
    *("typing.Any", "torch.Size"),
    *(f"pathlib.{kind}Path" for kind in ("", "Posix", "PurePosix", "Windows", "PureWindows")),
    *("torch.device", "torch.dtype", *_TYPES),
)


_MODULES = (
    *("src.modeling.", "open_clip.", "torch.nn.", "torchvision.transforms."),
    *("lightning.", "pytorch_lightning.", "omegaconf.", "numpy.", "torch.optim."),
)


#: Entries of a training's file that hold a moving average, and that hold the weights.
AVERAGED_ENTRIES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
ENTRIES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params")

#: Bytes of all tensors together, as a multiple of the file's: tied weights are stored once.
_ROOM = 4

#: Deepest nesting of a training checkpoint that is searched.
_DEPTH = 4

#: Arguments of torch's functions that rebuild a tensor.
MAX_ARGUMENTS = 8

#: Letters in a name: one long name, repeated at every level, would fill the memory.
MAX_NAME = 1000


@dataclass(frozen=True)
class Pickled:
    """The weights in a file.

    Attributes:
        tensors: state dict.
        maker: name of a pickled module's class; ``None`` for a state dict.
        attributes: numbers, flags and texts of a pickled module, such as ``training``.
    """

    tensors: Mapping[str, Tensor]
    maker: str | None = None
    attributes: dict[str, bool | int | float | str] = field(default_factory=dict)


def read_pickled(path: Path) -> Pickled:
    """Read a pickled state dict, a pickled module, or the one in a file of a training.

    In a training's file the first of ``AVERAGED_ENTRIES`` is read, otherwise the first of
    ``ENTRIES``. No code of the file runs, and the memory is proportional to the bytes of the file.

    Raises:
        UserError: a broken or hostile file; one line that names the mistake.
    """
    with TorchArchive(path) as archive:
        try:
            program = read_pickle(
                archive.program(), lambda name: name in _NAMES or name.startswith(_MODULES)
            )
            root, entry = _weights_in(program)
            if entry in AVERAGED_ENTRIES:
                log.warning("%s: its moving average, %s, is read", archive.found, entry)
            return _content(root, _Tensors(archive))
        except PickleError as error:
            raise UserError(f"{archive.found}: {error}; nothing of it was run") from error


def _weights_in(root: Any) -> tuple[Any, str]:
    """The innermost entry of a training's file that holds the weights, and its name.

    The name of a moving average is kept, whatever the entries inside it are called.
    """
    taken = ""
    for _ in range(_DEPTH):
        items = _items(root)
        names = (name for name in (*AVERAGED_ENTRIES, *ENTRIES) if name in items)
        entry = next((name for name in names if _holds_weights(items[name])), None)
        if entry is None:
            break
        root, taken = items[entry], entry if taken not in AVERAGED_ENTRIES else taken
    return root, taken


def _holds_weights(node: Any) -> bool:
    """Whether it is a module, has tensors, or entries of a training's file in turn."""
    if isinstance(node, Built) and isinstance(node.state, dict) and "_modules" in node.state:
        return True
    items = _items(node)
    return any(map(_is_tensor, items.values())) or any(name in items for name in ENTRIES)


def _items(node: Any) -> dict[str | int, Any]:
    """The entries of a mapping; none of anything else."""
    items = node.items if isinstance(node, Built) and node.maker == _MAPPING else node
    return items if isinstance(items, dict) else {}


def _is_tensor(node: Any) -> bool:
    return isinstance(node, Built) and node.maker in (_TENSOR, _YOUNG_TENSOR, _PARAMETER)


def _content(root: Any, tensors: _Tensors) -> Pickled:
    """Tensors and plain attributes of a module, or the tensors of a state dict."""
    if isinstance(root, Built) and root.maker != _MAPPING:
        attributes = {
            name: value
            for name, value in _mapping(root.state, f"the state of {shown(root.maker)}").items()
            if _is_plain(value) and value is not None
        }
        state = {name: tensors.read(name, node) for name, node in _module_tensors(root)}
        return Pickled(state, root.maker, attributes)
    entries = _mapping(root, "its content")
    if any(map(_is_tensor, entries.values())):  # numbers beside them, such as the epoch, are left
        entries = {name: node for name, node in entries.items() if not _is_plain(node)}
    return Pickled({name: tensors.read(name, node) for name, node in entries.items()})


def _is_plain(node: Any) -> bool:
    return node is None or isinstance(node, bool | int | float | str)


def _module_tensors(root: Built) -> Iterator[tuple[str, Any]]:
    """Name and description of every tensor the module's ``state_dict()`` would hold."""
    seen: set[int] = set()

    def once(node: Any, what: str) -> Any:
        # Parts that contain each other would be walked without end.
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
        transient: set[str] = set()
        match parts["_non_persistent_buffers_set"]:
            case Built(maker="__builtin__.set", arguments=(list(values),)):
                transient = {value for value in values if isinstance(value, str)}
        for part in ("_parameters", "_buffers"):
            for key, node in _mapping(parts[part], f"{part} of {shown(name)}").items():
                if node is not None and key not in transient:
                    yield f"{name}{key}", node
        for key, child in _mapping(parts["_modules"], f"_modules of {shown(name)}").items():
            if child is not None:
                pending.append((f"{name}{key}.", child))


def _mapping(node: Any, what: str) -> Mapping[str, Any]:
    """The entries of a mapping from names; anything else is refused, under its name ``what``."""
    items: Any = node.items if isinstance(node, Built) and node.maker == _MAPPING else node
    if not isinstance(items, dict) or not all(
        isinstance(key, str) and len(key) <= MAX_NAME for key in items
    ):
        raise PickleError(f"{what} is no mapping of names")
    return items


class _Tensors:
    """Makes tensors from their descriptions, each checked against its storage."""

    def __init__(self, archive: TorchArchive) -> None:
        self.archive = archive
        self.storages: dict[tuple[torch.dtype, str], Tensor] = {}
        self.room = _ROOM * archive.path.stat().st_size

    def read(self, name: str, node: Any) -> Tensor:
        """The tensor; no two share memory, which safetensors could not store."""
        if isinstance(node, Built) and node.maker == _PARAMETER and node.arguments:
            node = node.arguments[0]
        if not _is_tensor(node) or not 4 <= len(node.arguments) <= MAX_ARGUMENTS:
            raise PickleError(f"{shown(name)} is no tensor")
        known = len(self.storages)
        storage = self._storage(name, node)
        offset, size, stride = node.arguments[1:4]
        if not _fits(offset, size, stride, storage.numel()):
            raise PickleError(f"tensor {shown(name)} does not fit into its storage")
        self.room -= math.prod(size) * storage.itemsize
        if self.room < 0:
            raise PickleError("its tensors together are far larger than the file")
        view = storage.as_strided(size, stride, offset)
        if storage.dtype in _TYPES.values():  # torch computes nothing in eight bits
            return view.float()
        return view if len(self.storages) > known else view.clone()

    def _storage(self, name: str, node: Built) -> Tensor:
        match node.arguments:
            case (Persistent(("storage", Name(kind), str(key), str(), int(size))), *rest):
                dtype = _type_of(kind, rest)
                if dtype is None:
                    raise PickleError(f"tensor {shown(name)} is of a type that is not read")
                if (dtype, key) not in self.storages:
                    elements = size // dtype.itemsize if kind == _UNTYPED else size
                    self.storages[dtype, key] = self.archive.storage(key, dtype, elements)
                return self.storages[dtype, key]
        raise PickleError(f"tensor {shown(name)} has no storage")


def _type_of(storage: str, arguments: list[Any]) -> torch.dtype | None:
    """The type of a tensor: that of its storage, or of an untyped one the tensor's own."""
    match arguments:
        case (_, _, _, _, _, Name(kind), *_) if storage == _UNTYPED:
            return _TYPES.get(kind)
    return _STORAGES.get(storage)


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
