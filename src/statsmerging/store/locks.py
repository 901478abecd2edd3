"""Locks between processes; a long wait is logged."""

from __future__ import annotations

import errno
import logging
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from statsmerging.errors import UserError

log = logging.getLogger(__name__)

#: Seconds to wait for another process before saying so.
SILENT_WAIT = 3

#: Errors of file systems that have no locks.
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EIO)


def waiting_lock(path: Path, doing: str) -> AbstractContextManager[object]:
    """Hold the lock of a file; it is released when the process ends, however it ends.

    If the file system has no locks, a file that names the holder stands in for the lock. A killed
    process leaves it behind; the next process on the same machine notices that by itself.

    Args:
        path: the lock file.
        doing: shown to those who wait, e.g. ``making FILE``.

    Raises:
        UserError: the lock file is a link or a folder.
    """
    try:
        # filelock would fall back by itself for only one of these errors, and leave its file.
        return _acquire(FileLock(path, fallback_to_soft=False), doing)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise UserError(f"{path} is no regular file, so it cannot be locked") from error
        if error.errno not in _UNSUPPORTED:
            raise
        note = path.with_name(f"{path.name}.held")
        _warn_of_notes(path.parent, error.strerror)
        return _acquire(SoftFileLock(note), f"{doing} (if none is, remove {note})")


def _acquire(lock: BaseFileLock, doing: str) -> AbstractContextManager[object]:
    try:
        return lock.acquire(timeout=SILENT_WAIT)
    except Timeout:
        log.info("waiting for another process that is %s", doing)
        return lock.acquire()


@cache
def _warn_of_notes(folder: Path, reason: str) -> None:
    """Warn, once per process and folder, that files named ``*.held`` replace locks."""
    log.warning(
        "%s: no file locks (%s), so files named *.held stand for them; one left by a process that "
        "was killed on another machine has to be removed by hand",
        folder,
        reason,
    )
