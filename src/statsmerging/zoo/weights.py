"""Weights in safetensors files: checked, then read tensor by tensor, and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from statsmerging.errors import UserError, first_line, printable, shown
from statsmerging.merging.state_dicts import check_finite
from statsmerging.store.files import atomic_path
from statsmerging.store.hashing import state_sha256

#: Bytes that tell what a file is.
_BEGINNING = 512

_ARCHIVE = b"PK\x03\x04"

# How a file begins → what it is, and what to do.
_KINDS = {
    b"version https://git-lfs.github.com/": (
        "a Git LFS pointer, not the weights themselves: `git lfs pull` fetches them"
    ),
    b"GGUF": "a GGUF file, whose weights are quantised: take those it was made from",
    b"\x89HDF": "an HDF5 file of Keras: take the weights for PyTorch",
}


def check_weights_file(path: Path, *, archive: bool) -> None:
    """Refuse a file without weights, or in another format than its name tells.

    Args:
        path: a file that is about to be read as weights.
        archive: whether an archive of torch.save is expected; otherwise safetensors.

    Raises:
        UserError: no file, an empty one, or one of another kind; one line that names it.
    """
    where = printable(str(path))
    if path.is_dir():
        raise UserError(f"{where} is a folder, not a file of weights")
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    with path.open("rb") as stream:
        head = stream.read(_BEGINNING)
    if not head:
        raise UserError(f"{where} is empty: the copy or the download was cut, get it again")
    if head.startswith(_ARCHIVE) != archive:
        if not archive:
            raise UserError(f"{where} is an archive as torch.save writes it: name it .pt")
        if head[8:9] == b"{" and b"\0" in head[:8]:
            raise UserError(f"{where} is a safetensors file: name it .safetensors")
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            raise UserError(f"{where} is {kind}")
    # The header length of safetensors and the entries of an archive hold zero bytes, a text none.
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
        if text[:9].lower() == "<!doctype" or text[:5].lower() == "<html":
            raise UserError(
                f"{where} is an HTML page, not weights: its address wants a login, or is that of "
                "a page"
            )
        kind = "a JSON text" if text[:1] in ("{", "[") else "a text"
        beginning = shown(" ".join(text[:60].split()))
        raise UserError(f"{where} is {kind}, not weights; it begins {beginning}")


#: Largest number of dimensions of a tensor.
MAX_DIMENSIONS = 8

#: Bytes of tensors that are read before the file is opened again. An open file keeps the tensors
#: that were read in memory; opening it reads the names of all tensors.
_READ_AT_ONCE = 1 << 24


class Weights(Mapping[str, Tensor]):
    """A state dict that does not change, with its hash.

    Args:
        tensors: tensor name → tensor, in memory or on disk.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Weights:
        """The state dict as weights; weights are returned as they are, with their hash."""
        return state if isinstance(state, Weights) else cls(state)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @cached_property
    def sha256(self) -> str:
        """Hash of names, types, shapes and values; computed at its first use."""
        return state_sha256(self)


class FileTensors(Mapping[str, Tensor]):
    """The tensors of a safetensors file; each access reads one from the disk, and keeps none.

    Eight-bit floating point is returned as float32, because torch computes nothing in eight bits.
    ``safetensors.torch.save_model`` writes tied tensors once and records the other names in the
    file's metadata; they are names of the same tensor here too.

    Args:
        path: the file; it must not change during the life of this object.
        prefix: keep the tensors whose name starts with it, without it.

    Raises:
        UserError: no such file, not safetensors, or cut short.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        if path.suffix != ".safetensors" and not path.is_dir():
            raise UserError(
                f"{printable(str(path))}: weights are read from .safetensors files only; "
                "job=convert makes one"
            )
        check_weights_file(path, archive=False)
        self.path = path
        self._file: Any = None
        self._to_read = 0
        file = self._opened()
        stored = dict(zip(file.keys(), file.keys(), strict=True))
        tied = (file.metadata() or {}).items()
        stored |= {name: twin for name, twin in tied if twin in stored and name not in stored}
        self._names = {
            name.removeprefix(prefix): twin
            for name, twin in stored.items()
            if name.startswith(prefix)
        }

    def __getitem__(self, name: str) -> Tensor:
        stored = self._names[name]
        try:
            tensor: Tensor = self._opened().get_tensor(stored)
        except SafetensorError as error:
            raise self._unreadable(error) from error
        if tensor.dim() > MAX_DIMENSIONS:
            raise UserError(
                f"{printable(str(self.path))}: tensor {shown(stored)} has {tensor.dim()} dimensions"
            )
        self._to_read -= tensor.nbytes
        if self._to_read < 0:
            self._file = None
        if not tensor.is_floating_point() or tensor.dtype.itemsize > 1:
            return tensor
        try:
            return tensor.float()
        except RuntimeError as error:
            raise UserError(
                f"{printable(str(self.path))}: tensor {shown(stored)} is in {tensor.dtype}, which "
                "is not read"
            ) from error

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getstate__(self) -> dict[str, Any]:
        # An open file cannot be sent to another process.
        return {**self.__dict__, "_file": None}

    def _opened(self) -> Any:
        if self._file is None:
            try:
                self._file = safe_open(self.path, "pt")
            except (SafetensorError, OSError) as error:
                raise self._unreadable(error) from error
            self._to_read = _READ_AT_ONCE
        return self._file

    def _unreadable(self, error: Exception) -> UserError:
        reason = printable(first_line(error))[:200]
        return UserError(f"{printable(str(self.path))} is not a whole safetensors file: {reason}")


def read_weights(path: Path) -> Weights:
    """State dict in a safetensors file; a tensor is read whenever it is used.

    Raises:
        UserError: no such file, not safetensors, or cut short.
        MergingError: NaN or infinite weights (names the tensor).
    """
    weights = Weights(FileTensors(path))
    check_finite(weights, found=printable(str(path)))
    return weights


def write_weights(
    path: Path, state: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None
) -> None:
    """Write a state dict as safetensors, atomically.

    Args:
        metadata: entries of the file's header.
    """
    tensors: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        # safetensors stores no tensor under two names: the second name gets a copy.
        twin = tensor.numel() > 0 and tensor.data_ptr() in written
        tensors[name] = tensor.clone() if twin else tensor
        written.add(tensor.data_ptr())
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata)
