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
from statsmerging.store.locks import HeldError, is_held, waiting_lock

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


def test_a_look_at_a_lock_tells_who_holds_it_and_changes_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert not is_held(lock)
    assert not lock.exists()
    with waiting_lock(lock, "testing"):
        assert is_held(lock)
    assert not is_held(lock)
    with waiting_lock(lock, "testing", at_most=0):  # the look itself is over
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from statsmerging.store.locks import waiting_lock\n"
        "with waiting_lock(Path(sys.argv[1]), 'testing'):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert is_held(lock)
    with pytest.raises(HeldError):
        waiting_lock(lock, "testing", at_most=0.1)
    holder.kill()
    holder.communicate()
    assert not is_held(lock)


def test_a_look_at_a_note_asks_for_its_process(without_locks: None, tmp_path: Path) -> None:
    lock, note = tmp_path / "lock", tmp_path / "lock.held"
    lock.touch()
    assert not is_held(lock)
    with waiting_lock(lock, "testing"):
        assert is_held(lock)
    assert not is_held(lock)
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    note.write_text(f"{killed.pid}\n{socket.gethostname()}\n")
    assert not is_held(lock)
    note.write_text(f"{killed.pid}\nanother.machine\n")  # where it may live
    assert is_held(lock)
