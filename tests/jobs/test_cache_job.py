"""``job=cache``: shown by kind, pruned by last use, and nothing deleted that is not ours."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from statsmerging.app.config import JobSettings
from statsmerging.app.run import Run
from statsmerging.errors import UserError
from statsmerging.jobs.cache import DAY, cache
from statsmerging.store import cache_entries
from statsmerging.store.cache import Cache, checksum_of, lock_of
from statsmerging.store.locks import waiting_lock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two old entries and a new one, and files of others beside them."""
    root = tmp_path / "cache"
    for kind, name, days in [("images", "a", 50), ("images", "b", 2), ("labels", "c", 40)]:
        path = made(root, kind, name)
        used(path, days)
    for foreign in ("images/notes.txt", "hub/data/file.arrow", "README"):
        (root / foreign).parent.mkdir(parents=True, exist_ok=True)
        (root / foreign).write_text("of somebody")
        os.utime(root / foreign, (0, 0))
    return root


def made(root: Path, kind: str, name: str) -> Path:
    return Cache(root).file(kind, name, lambda path: _write(path, name))


def _write(path: Path, name: str) -> None:
    path.write_text(name * 100)


def used(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(checksum_of(path), (then, then))


def run(root: Path, **job: Any) -> None:
    settings = JobSettings(name="cache", **job)
    cache(cast("Run", SimpleNamespace(config=SimpleNamespace(job=settings, cache=str(root)))))


def files(root: Path) -> set[str]:
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return {name for name in found if not name.endswith((".lock", ".xxh128"))}


ALL = {"images/a", "images/b", "labels/c", "images/notes.txt", "hub/data/file.arrow", "README"}


@pytest.mark.parametrize("job", [{}, {"unused_days": 30}, {"unused_days": 0}])
def test_nothing_is_deleted_unless_that_is_asked_for(
    root: Path, job: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run(root, **job)
    assert files(root) == ALL
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("images", "labels", "2 to 50", "other files, which stay"))
    assert ("2 entries unused for 30 days" in shown) is (job == {"unused_days": 30})


def test_what_nobody_used_is_deleted_with_its_checksum_and_lock(root: Path) -> None:
    run(root, unused_days=30, delete="confirmed")
    assert files(root) == ALL - {"images/a", "labels/c"}
    for gone in (root / "images" / "a", root / "labels" / "c"):
        assert not checksum_of(gone).exists()
        assert not lock_of(gone).exists()
    assert Cache(root).file("images", "b", cast("Any", None)).read_text() == "b" * 100


def test_a_use_keeps_an_entry(root: Path) -> None:
    made(root, "labels", "c")
    run(root, unused_days=30, delete="confirmed")
    assert files(root) == ALL - {"images/a"}


def test_an_entry_that_was_changed_or_replaced_by_a_link_stays(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "images" / "a").write_text("something else")
    (root / "labels" / "c").unlink()
    (root / "labels" / "c").symlink_to(root / "README")
    run(root, unused_days=0, delete="confirmed")
    assert files(root) == ALL - {"images/b"}
    assert "a: it is not what was written there" in capsys.readouterr().err


def test_an_entry_that_is_being_made_stays(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_entries, "_PATIENCE", 0.01)
    with waiting_lock(lock_of(root / "images" / "a"), "making"):
        run(root, unused_days=30, delete="confirmed")
    assert files(root) == ALL - {"labels/c"}
    assert "a: a job is making it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"delete": True}, "job.delete: job.unused_days=DAYS says which entries"),
        ({"delete": True, "unused_days": 3}, "there is no terminal"),
    ],
)
def test_what_cannot_be_deleted_is_said(root: Path, job: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(root, **job)
    assert files(root) == ALL


@pytest.mark.parametrize(("answer", "left"), [("y", ALL - {"images/a", "labels/c"}), ("", ALL)])
def test_the_user_is_asked(
    root: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: set[str]
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: answer)
    run(root, unused_days=30, delete=True)
    assert files(root) == left


def test_no_cache_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        run(tmp_path / "none")
