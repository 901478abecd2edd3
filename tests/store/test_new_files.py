"""Results of the user's own are never replaced by something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from statsmerging.errors import UserError, shown
from statsmerging.store.files import new_path, write_text


def test_another_content_is_refused_and_the_same_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "result.txt"
    for _ in range(2):
        with new_path(path) as partial:
            write_text(partial, "first")
    with (
        pytest.raises(UserError, match=r"result\.txt already holds something else"),
        new_path(path) as partial,
    ):
        write_text(partial, "second")
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["result.txt"]


def test_foreign_text_stays_on_one_short_line() -> None:
    assert shown("a\nb\x1b[2J") == r"'a\nb\x1b[2J'"
    assert len(shown("x" * 10_000)) == 83
