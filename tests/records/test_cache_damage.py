"""A cache entry that is not what was written is noticed and made anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statsmerging.records.cache import Cache
from statsmerging.records.hashing import file_checksum

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


@pytest.mark.parametrize("damage", ["cut", "empty", "no checksum", "foreign checksum"])
def test_other_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    counter: list[int] = []
    made(Cache(tmp_path), counter)
    path = tmp_path / "kind" / "entry.bin"
    checksum = path.with_name("entry.bin.xxh128")
    if damage == "cut":
        path.write_bytes(CONTENT[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "no checksum":
        checksum.unlink()
    else:
        checksum.write_text("0" * 32)
    assert made(Cache(tmp_path), counter) == CONTENT
    assert counter == [1, 1]


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
