"""The entries of a cache: how large they are, when they were used last, and their deletion."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from statsmerging.errors import UserError
from statsmerging.store.cache import checksum_of, is_whole, lock_of
from statsmerging.store.locks import waiting_lock

#: Seconds to wait for a lock that somebody may only be probing.
_PATIENCE = 1.0


@dataclass(frozen=True)
class CacheEntry:
    """One entry.

    Attributes:
        kind: name of its folder.
        bytes: its size.
        last_used: seconds since 1970, to the day.
    """

    path: Path
    bytes: int
    last_used: float

    @property
    def kind(self) -> str:
        return self.path.parent.name


@dataclass(frozen=True)
class CacheContent:
    """All files of a cache.

    Attributes:
        entries: files with a checksum beside them.
        foreign: everything else, but for locks and checksums.
    """

    entries: list[CacheEntry]
    foreign: list[Path]


def cache_content(root: Path) -> CacheContent:
    """Look at all files below the folder of a cache. Links are not followed.

    Raises:
        UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"cache={root}: there is no such folder")
    entries, foreign = [], []
    for path in _files(root):
        if _is_beside_an_entry(path):
            continue
        checksum = checksum_of(path)
        if path.parent.parent == root and not path.is_symlink() and checksum.is_file():
            status = path.lstat()
            entries.append(CacheEntry(path, status.st_size, checksum.lstat().st_mtime))
        else:
            foreign.append(path)
    return CacheContent(sorted(entries, key=lambda entry: entry.path), sorted(foreign))


def delete_entry(root: Path, entry: CacheEntry) -> None:
    """Delete one entry with its checksum and its lock.

    Raises:
        HeldError: a job is making it.
        UserError: it is not, or no more, what we wrote; it stays.
    """
    lock = lock_of(entry.path)
    with waiting_lock(lock, "deleting", at_most=_PATIENCE):
        if not is_whole(root, entry.path):
            raise UserError("it is not what was written there")
        # In this order: no entry is ever without its checksum.
        entry.path.unlink()
        checksum_of(entry.path).unlink()
        lock.unlink(missing_ok=True)  # one who waits for it makes a new one


def _is_beside_an_entry(path: Path) -> bool:
    """Whether a file is a lock, or the checksum of another file."""
    is_lock = path.name.startswith(".") and path.name.endswith((".lock", ".lock.held"))
    return is_lock or path == checksum_of(path.with_suffix(""))


def _files(folder: Path) -> Iterator[Path]:
    """All files and links below a folder; links to folders are not entered."""
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (Path(place, name) for name in (*names, *links))
