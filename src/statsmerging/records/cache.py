"""The content-addressed cache: every entry is computed once and shared by all runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

from statsmerging.records.files import atomic_path, remove_partials, write_text
from statsmerging.records.hashing import file_checksum
from statsmerging.records.locks import waiting_lock

log = logging.getLogger(__name__)


class Cache:
    """A folder of files named by kind and key, e.g. ``teacher_labels/0123456789abcdef.npz``.

    A key is a hash of all that determines the content, so an entry never goes stale. Several
    processes may share the folder: the first one computes an entry, the others wait and read it.
    A checksum beside each entry tells whether it is what was written; one that is not is made anew.

    Args:
        root: the folder; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, name: str) -> Path:
        """Where the entry lies or will lie."""
        return self.root / kind / name

    def file(self, kind: str, name: str, write: Callable[[Path], None]) -> Path:
        """The entry's file, made by ``write(path)`` if it is not there yet or damaged."""
        path = self.path(kind, name)
        if _is_sound(path):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(path.with_name(f".{path.name}.lock"), f"making {path}"):
            if not _is_sound(path):
                if path.exists():
                    _warn(path)
                _make(path, write)
        return path


def _make(path: Path, write: Callable[[Path], None]) -> None:
    remove_partials(path)  # of a process that was killed: the lock says that nobody writes now
    with atomic_path(path) as partial:
        write(partial)
        # Before the entry takes its name: no entry is ever without its checksum.
        write_text(_checksum_of(path), file_checksum(partial))


def _is_sound(path: Path) -> bool:
    """Whether the entry is there and as it was written; read over once per process."""
    checksum = _checksum_of(path)
    return path.exists() and checksum.exists() and checksum.read_text() == file_checksum(path)


def _warn(path: Path) -> None:
    """Say why an entry is made anew."""
    if _checksum_of(path).exists():
        log.warning("%s is not what was written there: it is made anew", path)
    else:
        _warn_of_folder(path.parent, path.suffix)


@cache
def _warn_of_folder(folder: Path, suffix: str) -> None:
    """Once per process: where one entry has no checksum, an old version left many of them."""
    without = sum(not _checksum_of(path).exists() for path in folder.glob(f"[!.]*{suffix}"))
    log.warning(
        "%s: %d file(s) without a checksum, so nothing tells whether they are whole: each is made "
        "anew when it is needed",
        folder,
        without,
    )


def _checksum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.xxh128")
