"""A cache entry that is not what was written is noticed and made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsmerging.errors import UserError
from statsmerging.store import cache as records_cache
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import file_checksum

CONTENT = bytes(range(256)) * 64


def made(cache: Cache, counter: list[int]) -> bytes:
    def write(path: Path) -> None:
        counter.append(1)
        path.write_bytes(CONTENT)

    return cache.file("kind", "entry.bin", write).read_bytes()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, len(CONTENT) * 8 - 1))
def test_any_flipped_bit_is_noticed_by_another_process(tmp_path: Path, bit: int) -> None:
    counter: list[int] = []
    made(Cache(tmp_path), counter)
    counter.clear()
    path = tmp_path / "kind" / "entry.bin"
    damaged = bytearray(path.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    assert made(Cache(tmp_path), counter) == CONTENT
    assert counter == [1]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def no_text(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[5] ^= 0x80
    file.write_bytes(content)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "of somebody").touch()


def link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


@pytest.mark.parametrize("damage", [cut, empty, no_text, folder, link, Path.unlink])
@pytest.mark.parametrize("name", ["entry.bin", "entry.bin.xxh128"])
def test_other_damage_is_healed(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    counter: list[int] = []
    made(Cache(tmp_path), counter)
    damage(tmp_path / "kind" / name)
    before = len(counter)
    assert made(Cache(tmp_path), counter) == CONTENT
    assert len(counter) == before + 1
    assert made(Cache(tmp_path), counter) == CONTENT
    assert len(counter) == before + 1
    assert not (tmp_path / "kind" / name).is_symlink()
    # What was in the way is nobody's to remove.
    assert len(list(tmp_path.rglob("of somebody"))) == (damage is folder)


def test_a_sound_entry_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a cache of another user, or on a disk that nobody may write to."""
    made(Cache(tmp_path), [])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(records_cache, "waiting_lock", refuse)
    for name in ("mkdir", "write_bytes", "write_text", "touch", "chmod", "unlink", "rename"):
        monkeypatch.setattr(Path, name, refuse)
    counter: list[int] = []
    assert made(Cache(tmp_path), counter) == CONTENT
    assert not counter


def test_an_entry_of_another_version_is_made_anew_once(tmp_path: Path) -> None:
    """It is what was written there, and yet nothing that is read today."""
    versions = iter([b"old", b"new", b"newer"])

    def read(path: Path) -> bytes:
        if path.read_bytes() == b"old":
            raise UserError("it is old")
        return path.read_bytes()

    def write(path: Path) -> None:
        path.write_bytes(next(versions))

    for _ in range(2):
        assert Cache(tmp_path).load("kind", "entry.bin", write, read) == b"new"


def test_an_entry_that_can_never_be_read_ends_the_job(tmp_path: Path) -> None:
    made_times: list[int] = []

    def read(path: Path) -> bytes:
        raise UserError("it cannot be read")

    with pytest.raises(UserError, match="it cannot be read"):
        Cache(tmp_path).load("kind", "entry.bin", lambda path: made_times.append(1), read)
    assert len(made_times) == 2


def test_nothing_is_written_through_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kind").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="kind is a link"):
        made(Cache(tmp_path), [])
    assert not list((tmp_path / "elsewhere").iterdir())


def test_entries_without_checksums_are_told_once_for_their_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    names = ["a.bin", "b.bin", "c.bin"]
    for name in names:
        (folder / name).write_bytes(CONTENT)
    (folder / "unfinished.ckpt").touch()
    cache = Cache(tmp_path)
    cache.file("images", "d.bin", lambda path: None)
    for name in names:
        cache.file("images", name, lambda path: None)
    (folder / "d.bin").write_bytes(b"damaged")
    cache.file("images", "d.bin", lambda path: None)
    without, damaged = caplog.messages
    assert without.startswith(f"{folder}: 3 file(s) without a checksum")
    assert damaged == f"{folder}/d.bin is not what was written there: it is made anew"


def test_a_killed_writers_remains_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "kind"
    folder.mkdir()
    (folder / ".entry.bin.abc.partial").write_bytes(b"half")
    (folder / ".other.bin.abc.partial").write_bytes(b"half of another, perhaps being written")
    made(Cache(tmp_path), [])
    left = {path.name for path in folder.glob("*.partial")}
    assert left == {".other.bin.abc.partial"}


def test_a_file_is_read_over_once_per_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    before = file_checksum(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", None)  # reading would fail
        assert file_checksum(path) == before
    path.write_bytes(CONTENT[::-1])
    assert file_checksum(path) != before


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        Cache(tmp_path).file("kind", "entry.bin", write)
    assert {path.name for path in (tmp_path / "kind").iterdir()} <= {".entry.bin.lock"}
