"""Only what was written from here is overwritten or removed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from statsmerging.errors import UserError
from statsmerging.store.files import read_json, write_json
from statsmerging.store.hashing import file_sha256
from statsmerging.store.written_files import WrittenFiles

RECORD = ".report.json"


def write(folder: Path, *names: str, text: str = "ours") -> None:
    files = WrittenFiles(folder, RECORD, names)
    for name in names:
        files.write_text(name, text)
    files.remove_earlier()


def test_an_earlier_time_s_files_are_replaced_and_removed(tmp_path: Path) -> None:
    write(tmp_path, "page.md", "tables/a.tex", "tables/b.tex")
    (tmp_path / "tables" / "mine.tex").write_text("mine")
    write(tmp_path, "page.md", "tables/b.tex", text="newer")
    left = {path.name: path.read_text() for path in (tmp_path / "tables").iterdir()}
    assert left == {"b.tex": "newer", "mine.tex": "mine"}
    assert set(read_json(tmp_path / RECORD)) == {"page.md", "tables/b.tex"}


@pytest.mark.parametrize("found", ["file", "changed", "link", "linked folder", "no folder"])
def test_another_s_file_is_refused_before_anything_is_written(tmp_path: Path, found: str) -> None:
    folder, other = tmp_path / "report", tmp_path / "other"
    other.mkdir()
    folder.mkdir()
    (other / "b.tex").write_text("mine")
    tables = folder / "tables"
    if found == "linked folder":
        tables.symlink_to(other)
    elif found == "no folder":
        tables.write_text("mine")
    else:
        write(folder, "tables/a.tex")
        write(folder, "tables/b.tex") if found == "changed" else None
        if found == "link":
            (tables / "b.tex").symlink_to(other / "b.tex")
        else:
            (tables / "b.tex").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"choose another hydra\.run\.dir"):
        write(folder, "page.md", "tables/b.tex")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_received_record_removes_nothing_elsewhere(tmp_path: Path) -> None:
    folder, precious = tmp_path / "report", tmp_path / "thesis.tex"
    precious.write_text("months of work")
    hashes = [file_sha256(precious)]
    (folder / "linked").mkdir(parents=True)
    (folder / "linked" / "up").symlink_to(tmp_path)
    names = [str(precious), "../thesis.tex", "linked/up/thesis.tex", "linked"]
    write_json(folder / RECORD, dict.fromkeys(names, hashes))
    write(folder, "page.md")
    assert precious.exists()
    assert (folder / "linked").is_dir()


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1}'])
def test_a_record_of_another_kind_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(UserError, match=r"\.report\.json"):
        write(tmp_path, "page.md")


def test_a_process_may_be_killed_before_or_after_a_file_has_its_name(tmp_path: Path) -> None:
    write(tmp_path, "page.md", text="first")
    files = WrittenFiles(tmp_path, RECORD, ["page.md"])
    with suppress(KeyboardInterrupt), files.writing("page.md") as partial:
        partial.write_text("second")
        raise KeyboardInterrupt
    write(tmp_path, "page.md", text="third")
    assert (tmp_path / "page.md").read_text() == "third"
    WrittenFiles(tmp_path, RECORD, ["page.md"]).write_text("page.md", "fourth")  # and no more
    write(tmp_path, "page.md", text="fifth")
    assert (tmp_path / "page.md").read_text() == "fifth"
