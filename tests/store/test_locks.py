"""Locks, also where the file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from statsmerging.errors import UserError
from statsmerging.store.locks import waiting_lock

PROBLEMS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO]


@pytest.fixture(params=PROBLEMS, ids=errno.errorcode.__getitem__)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that answers every wish for a lock with an error."""

    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_a_note_stands_for_a_lock_where_there_are_none(
    without_locks: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note = tmp_path / "lock.held"
    with waiting_lock(tmp_path / "lock", "testing"):
        assert str(os.getpid()) in note.read_text()
    assert not note.exists()
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path}: no file locks (")


def test_the_note_of_a_process_that_was_killed_here_is_not_waited_for(
    without_locks: None, tmp_path: Path
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    (tmp_path / "lock.held").write_text(f"{killed.pid}\n{socket.gethostname()}\n")
    with waiting_lock(tmp_path / "lock", "testing"):
        assert str(os.getpid()) in (tmp_path / "lock.held").read_text()


def test_other_errors_are_told_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No space left"):
        waiting_lock(tmp_path / "lock", "testing")


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_file_is_not_locked(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "lock"
    if kind == "folder":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="lock is no regular file"):
        waiting_lock(lock, "testing")
    assert not (tmp_path / "elsewhere").exists()
