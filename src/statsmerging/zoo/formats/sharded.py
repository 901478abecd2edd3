"""Weights in shards: an index says which file holds which tensor, as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from statsmerging.records.errors import UserError, printable, shown
from statsmerging.records.received import is_plain_name, received_file, received_json

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
