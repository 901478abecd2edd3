"""State dicts as the zoo holds them: read from disk tensor by tensor, hashed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from statsmerging.records.errors import UserError
from statsmerging.records.hashing import state_sha256


class Weights(Mapping[str, Tensor]):
    """A state dict that does not change, and knows its hash.

    Args:
        tensors: tensor name → tensor, in memory or on disk.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Weights:
        """The state dict as weights; weights stay themselves, with the hash they have."""
        return state if isinstance(state, Weights) else cls(state)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @cached_property
    def sha256(self) -> str:
        """Hash of names, types, shapes and values; computed when it is first asked for."""
        return state_sha256(self)


class FileTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file, each read when it is asked for and then let go.

    Args:
        path: the file; it stays as it is as long as this object lives.
        prefix: keep the tensors whose name starts with it, without it.

    Raises:
        UserError: no such file, not safetensors, or cut short.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if path.suffix != ".safetensors":
            raise UserError(
                f"{path}: weights are read from .safetensors files only; job=convert makes one"
            )
        self.path = path
        self.prefix = prefix
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from error
        self._names = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        stored = self._names[name]
        # An open file keeps every page that was read in memory, so it is opened anew each time.
        with safe_open(self.path, "pt") as file:
            tensor: Tensor = file.get_tensor(stored)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
