"""The content-addressed cache: every entry is computed once and shared by all runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from statsmerging.records.files import atomic_path

log = logging.getLogger(__name__)

#: Seconds to wait for another process before saying so.
SILENT_WAIT = 3


class Cache:
    """A folder of files named by kind and key, e.g. ``teacher_labels/0123456789abcdef.npz``.

    A key is a hash of all that determines the content, so an entry never goes stale. Several
    processes may share the folder: the first one computes an entry, the others wait and read it.

    Args:
        root: the folder; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, name: str) -> Path:
        """Where the entry lies or will lie."""
        return self.root / kind / name

    def file(self, kind: str, name: str, write: Callable[[Path], None]) -> Path:
        """The entry's file, made by ``write(path)`` if it is not there yet."""
        path = self.path(kind, name)
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _turn(path):
            if not path.exists():
                with atomic_path(path) as partial:
                    write(partial)
        return path


def _turn(path: Path) -> AbstractContextManager[object]:
    """The entry's lock; a wait for whoever holds it is not silent for long."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        return lock.acquire(timeout=SILENT_WAIT)
    except Timeout:
        log.info("waiting for another process that is making %s", path)
        return lock.acquire()
