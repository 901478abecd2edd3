"""Locks between processes; a long wait is logged."""

from __future__ import annotations

import errno
import logging
import os
import socket
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

#: Errors that tell that somebody else holds the lock.
_HELD = (errno.EAGAIN, errno.EACCES)


class HeldError(Exception):
    """Another process holds the lock."""


def waiting_lock(
    path: Path, doing: str, *, at_most: float | None = None
) -> AbstractContextManager[object]:
    """Hold the lock of a file; it is released when the process ends, however it ends.

    If the file system has no locks, a file that names the holder stands in for the lock. A killed
    process leaves it behind; the next process on the same machine notices that by itself.

    Args:
        path: the lock file.
        doing: shown to those who wait, e.g. ``making FILE``.
        at_most: seconds to wait, in silence; ``None`` waits as long as it takes.

    Raises:
        UserError: the lock file is a link or a folder.
        HeldError: another process still holds it after ``at_most`` seconds.
    """
    try:
        # filelock would fall back by itself for only one of these errors, and leave its file.
        return _acquire(FileLock(path, fallback_to_soft=False), doing, at_most)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise UserError(f"{path} is no regular file, so it cannot be locked") from error
        if error.errno not in _UNSUPPORTED:
            raise
        note = _note(path)
        _warn_of_notes(path.parent, error.strerror)
        return _acquire(SoftFileLock(note), f"{doing} (if none is, remove {note})", at_most)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file; nothing is written, and nobody waits for long.

    Processes on other machines are seen where the file system passes locks on (NFS 4, most
    cluster file systems), or has none, so that notes stand for them. Of a note of another machine
    nobody can tell here whether its process lives: it counts as held.
    """
    import fcntl  # here, because Windows has none

    if os.path.lexists(_note(path)):
        return _holder_may_live(_note(path))
    try:
        # NFS grants a shared lock on what is open for reading; filelock takes an exclusive one.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:  # no such file, or one that is not ours: a link, a file of another user
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (*_HELD, *_UNSUPPORTED):
            raise
        return error.errno in _HELD
    finally:
        os.close(descriptor)
    return False


def _note(path: Path) -> Path:
    """The file that stands for the lock of ``path`` where the file system has none."""
    return path.with_name(f"{path.name}.held")


def _holder_may_live(note: Path) -> bool:
    """Whether the process that a note names (its number, then its machine) may still be there."""
    try:
        process, machine, *_ = note.read_text(encoding="utf-8").splitlines()
        if machine != socket.gethostname():
            return True
        os.kill(int(process), 0)
    except FileNotFoundError:  # released meanwhile
        return False
    except ProcessLookupError:
        return False
    except (OSError, ValueError):  # another user's process, or a note that is being written
        return True
    return True


def _acquire(
    lock: BaseFileLock, doing: str, at_most: float | None
) -> AbstractContextManager[object]:
    if at_most is not None:
        try:
            return lock.acquire(timeout=at_most)
        except Timeout as error:
            raise HeldError from error
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
