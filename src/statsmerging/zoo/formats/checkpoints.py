"""Files of weights: one file, shards with an index, or a folder; and the prefixes in their names.

A model is found by its own tensor names, behind any prefix. Where a file holds a moving average as
complete as the weights beside it, the average is read, as timm does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from statsmerging.errors import UserError, printable, shown
from statsmerging.store.received import is_plain_name, received_file, received_json
from statsmerging.zoo.formats.lora import CONFIG, WEIGHTS
from statsmerging.zoo.formats.pickled import SUFFIXES, Pickled, read_pickled
from statsmerging.zoo.weights import read_weights

#: Files of whole weights in a folder that a library wrote; the first that exists is read.
_IN_FOLDERS = (
    *("model.safetensors.index.json", "model.safetensors", "open_clip_model.safetensors"),
    *("pytorch_model.bin.index.json", "pytorch_model.bin", "open_clip_pytorch_model.bin"),
)

#: Ending of the file that maps tensor names to shards.
INDEX = ".index.json"

#: Prefixes of all names of a moving average.
_AVERAGED = ("model_ema.", "ema_model.", "ema.")

#: Prefixes of a moving average, of DataParallel, of torch.compile, and of modules that hold the
#: network as an attribute.
_WRAPPERS = (*_AVERAGED, "module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")

#: How many nested wrapper prefixes are stripped.
_DEPTH = 4


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
    """The file itself, or the one in a folder that holds the weights or their index."""
    if not source.is_dir():
        return source
    for name in _IN_FOLDERS:
        if (source / name).exists():
            return received_file(source, name)
    known = ", ".join((CONFIG, *_IN_FOLDERS))
    raise UserError(f"{printable(str(source))} is a folder without weights: none of {known}")


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
    """Tensor name → name of its shard, a file beside the index."""
    content = received_json(index.parent, index.name)
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise UserError(f"{printable(str(index))} is no index of shards: it has no weight_map")
    for file in files.values():
        if not isinstance(file, str) or not is_plain_name(file) or file.endswith(INDEX):
            raise UserError(
                f"{printable(str(index))}: {shown(str(file))} is no name of a file beside it"
            )
    return files


def wrapper_of(names: Iterable[str], known: Container[str]) -> str:
    """The prefix behind which most names are known; a moving average wins a draw.

    Args:
        names: of the tensors of a file.
        known: names of the model.

    Returns:
        The empty string where the names are known without a prefix, or none is known.
    """
    known_names: Counter[str] = Counter()
    for name in names:
        for prefix in _prefixes(name):
            known_names[prefix] += name[len(prefix) :] in known
    ranks = {
        prefix: (count, is_average(prefix), -len(prefix)) for prefix, count in known_names.items()
    }
    best = max(ranks, key=ranks.__getitem__, default="")
    return best if known_names[best] else ""


def without_wrapper(state: Mapping[str, Tensor], wrapper: str) -> Mapping[str, Tensor]:
    """The tensors behind a prefix, without it."""
    if not wrapper:
        return state
    return {name.removeprefix(wrapper): state[name] for name in state if name.startswith(wrapper)}


def is_average(wrapper: str) -> bool:
    """Whether the tensors behind a prefix are a moving average."""
    return any(f"{part}." in _AVERAGED for part in wrapper.split("."))


def around(wrapper: str) -> list[str]:
    """The prefix and those around it, from the inside out: ``a.b.``, ``a.``, and none."""
    parts = wrapper.split(".")[:-1]
    return ["".join(f"{part}." for part in parts[:end]) for end in range(len(parts), -1, -1)]


def _prefixes(name: str) -> Iterator[str]:
    """The empty prefix of a name, then one known wrapper after the other."""
    end = 0
    for _ in range(_DEPTH + 1):
        yield name[:end]
        wrapper = next((wrapper for wrapper in _WRAPPERS if name.startswith(wrapper, end)), None)
        if wrapper is None:
            return
        end += len(wrapper)
