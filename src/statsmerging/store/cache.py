"""The content-addressed cache: every entry is computed once and shared by all runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from statsmerging.errors import UserError, first_line
from statsmerging.store.files import atomic_path, remove_partials, set_aside, write_text
from statsmerging.store.hashing import file_checksum
from statsmerging.store.locks import waiting_lock
from statsmerging.store.received import ReceivedError, received_file

log = logging.getLogger(__name__)

Content = TypeVar("Content")

#: Seconds within which a use of an entry is not noted again.
DAY = 86_400


class Cache:
    """A folder of files named by kind and key, e.g. ``teacher_labels/0123456789abcdef.npz``.

    A key is a hash of all that determines the content, so an entry never goes stale. Several
    processes may share the folder: the first one computes an entry, the others wait and read it.
    A checksum beside each entry shows whether it is whole; a damaged entry is made again.

    Attributes:
        found: how often an entry was asked for that another process had made.
        spared: seconds that this process had spent before on entries that it asked for again.

    Args:
        root: the folder; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found = 0
        self.spared = 0.0
        self._made: dict[Path, float] = {}

    def path(self, kind: str, name: str) -> Path:
        """Where the entry lies or will lie."""
        return self.root / kind / name

    def file(self, kind: str, name: str, write: Callable[[Path], None]) -> Path:
        """The entry's file, made by ``write(path)`` if it is missing or damaged.

        A sound entry is only read, so the folder may be read-only or belong to another user.
        """
        path = self.path(kind, name)
        if not is_whole(self.root, path):
            self._make(path, write)
            return path
        _note_use(path)
        if path in self._made:
            self.spared += self._made[path]
        else:
            self.found += 1
        return path

    def load(
        self,
        kind: str,
        name: str,
        write: Callable[[Path], None],
        read: Callable[[Path], Content],
    ) -> Content:
        """The entry's content, as ``read(path)`` returns it from the file.

        A sound file that cannot be read was written by another version: it is made again, once.
        """
        path = self.file(kind, name, write)
        try:
            return read(path)
        except (UserError, SafetensorError, LookupError) as error:
            log.warning("%s cannot be read: it is made anew (%s)", path, first_line(error))
        self._make(path, write, again=True)
        return read(path)

    def _make(self, path: Path, write: Callable[[Path], None], *, again: bool = False) -> None:
        if path.parent.is_symlink():
            raise UserError(f"{path.parent} is a link: a cache is not written through links")
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(lock_of(path), f"making {path}"):
            if is_whole(self.root, path) and not again:
                return  # by the process that held the lock
            if os.path.lexists(path) and not again:
                _warn(path)
            begun = time.perf_counter()
            _write(path, write)
            self._made[path] = time.perf_counter() - begun


def is_whole(root: Path, path: Path) -> bool:
    """Whether an entry of a cache exists and has its checksum; verified once per process."""
    checksum = checksum_of(path)
    try:
        for file in (path, checksum):
            received_file(root, str(file.relative_to(root)))
        return checksum.read_bytes() == file_checksum(path).encode()
    except (ReceivedError, OSError):
        return False


def checksum_of(path: Path) -> Path:
    """The file beside an entry that holds its checksum; it changed last when the entry was used."""
    return path.with_name(f"{path.name}.xxh128")


def lock_of(path: Path) -> Path:
    """The file that is locked by the process that makes an entry."""
    return path.with_name(f".{path.name}.lock")


def _note_use(path: Path) -> None:
    """Tell, to the day, that an entry was used; nothing tells it in a cache that is read-only."""
    checksum = checksum_of(path)
    with suppress(OSError):
        if time.time() - checksum.stat().st_mtime > DAY:
            os.utime(checksum)


def _write(path: Path, write: Callable[[Path], None]) -> None:
    remove_partials(path)  # left by a killed process: we hold the lock, so nobody writes now
    for file in (path, checksum_of(path)):
        if file.is_dir() and not file.is_symlink():  # no file can take its name
            log.warning("%s is a folder: set aside as %s", file, set_aside(file))
    with atomic_path(path) as partial:
        write(partial)
        # Before the entry takes its name: no entry is ever without its checksum.
        write_text(checksum_of(path), file_checksum(partial))


def _warn(path: Path) -> None:
    """Log why an entry is made again."""
    if os.path.lexists(checksum_of(path)):
        log.warning("%s is not what was written there: it is made anew", path)
    else:
        _warn_of_folder(path.parent, path.suffix)


@cache
def _warn_of_folder(folder: Path, suffix: str) -> None:
    """Once per process: an old version wrote no checksums, so usually many entries lack one."""
    without = sum(not checksum_of(path).exists() for path in folder.glob(f"[!.]*{suffix}"))
    log.warning(
        "%s: %d file(s) without a checksum, so nothing tells whether they are whole: each is made "
        "anew when it is needed",
        folder,
        without,
    )
