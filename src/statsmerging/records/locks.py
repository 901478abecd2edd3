"""Locks between processes; a wait for whoever holds one is not silent for long."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

#: Seconds to wait for another process before saying so.
SILENT_WAIT = 3


def waiting_lock(path: Path, doing: str) -> AbstractContextManager[object]:
    """Hold the lock of a file; it is let go when the process ends, however it ends.

    Args:
        path: the lock file.
        doing: what its holder does, e.g. ``making FILE``.
    """
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=SILENT_WAIT)
    except Timeout:
        log.info("waiting for another process that is %s", doing)
        return lock.acquire()
