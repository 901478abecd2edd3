"""Pickles and archives an attacker would write, and the only way they may end."""

from __future__ import annotations

import io
import pickle
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from statsmerging.errors import UserError
from statsmerging.zoo.formats.pickled import read_pickled


class Call:
    """Pickled as a call of ``function``, optionally followed by setting a state."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts

    def __call__(self) -> None:
        """Makes the result of a call something that pickle lets be called."""


@dataclass(frozen=True)
class Storage:
    """Pickled as a reference to ``data/KEY`` of the archive."""

    key: str
    elements: int


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Storage):
            return ("storage", torch.FloatStorage, value.key, "cpu", value.elements)
        return None


def program(value: Any) -> bytes:
    """The pickle of a value, in the protocol of `torch.save`."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def tensor(
    storage: Storage, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0
) -> Call:
    """Pickled as a tensor that lies anyhow in a storage."""
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, size, stride, False, {})


def archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """An archive with the layout of `torch.save`."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("model/data.pkl", pickled)
        file.writestr("model/byteorder", "little")
        for key, content in (storages or {}).items():
            file.writestr(f"model/data/{key}", content)
    return path


def refusal(path: Path) -> str:
    """The one line with which the file is refused, after a moment and without much memory."""
    tracemalloc.start()
    started = time.process_time()
    try:
        with pytest.raises(UserError) as refused:
            read_pickled(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))
    assert peak < 64 << 20
    assert time.process_time() - started < 20  # of this process, however busy the machine is
    return message
