"""Content hashes: files, tensors, arrays and configs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Hexadecimal digits of the short hashes in directory and file names (64 bits).
SHORT = 16

#: Bytes read at a time.
BLOCK = 1 << 22


def _once_per_content(digest: Callable[[Path], str]) -> Callable[[Path], str]:
    """Read a file once per process, and again when its size or its time of change is another."""
    known: dict[tuple[Path, int, int], str] = {}

    @wraps(digest)
    def remembered(path: Path) -> str:
        status = path.stat()
        stamp = (path.absolute(), status.st_size, status.st_mtime_ns)
        if stamp not in known:
            known[stamp] = digest(path)
        return known[stamp]

    return remembered


@_once_per_content
def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@_once_per_content
def file_checksum(path: Path) -> str:
    """128-bit xxHash of a file's bytes: as fast as they are read, for finding damage alone."""
    import xxhash

    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict: names, types, shapes and values, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def json_sha256(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_sha256(folder: Path, packages: Iterable[str]) -> str:
    """SHA-256 of the Python files of a folder and the versions of the packages they use.

    It stands for what the code computes: as long as the hash is the same, so is that.
    """
    digest = hashlib.sha256(json_sha256({name: version(name) for name in packages}).encode())
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def key_of(parts: Iterable[str]) -> str:
    """Short hash of several strings: the name of a cache entry."""
    return json_sha256(list(parts))[:SHORT]
