"""Which files a run read, and whether they are still the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from statsmerging.records.hashing import file_sha256

#: File → its size in bytes and its time of modification in nanoseconds.
Stamps = dict[str, list[int]]


def file_stamps(paths: Iterable[Path]) -> Stamps:
    """Stamps of the given files, and of all files below the given folders."""
    stamps: Stamps = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                stamps[str(file)] = _stamp(file)
    return stamps


def changed_files(stamps: Mapping[str, list[int]]) -> list[str]:
    """Files that are gone or whose stamp is another; a file that was only touched is among them."""
    return [
        name
        for name, stamp in stamps.items()
        if not Path(name).is_file() or _stamp(Path(name)) != stamp
    ]


def file_records(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Name of each file → where it lies, its size in bytes and its sha256."""
    return {
        name: {"path": str(path), "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name, path in files.items()
    }


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
