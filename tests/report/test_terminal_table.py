"""A table in a terminal of any width: no number and no word is broken, nothing is lost unsaid."""

from __future__ import annotations

import pytest

from statsmerging.report.tables.content import Number, Row, Section, Table
from statsmerging.report.tables.terminal import print_table

TASKS = ("digits", "street_numbers", "traffic_signs", "photographs")
COLUMNS = (*TASKS, "average", "normalised", "unseen: printed digits")


def row(title: str, first: float) -> Row:
    numbers = [Number(first + 10 * place, 0.4) for place in range(len(COLUMNS))]
    return Row((title, "images"), tuple(numbers), {"method": title})


TABLE = Table(
    title="suite",
    caption="accuracy, %",
    labels=("method", "needs"),
    columns=COLUMNS,
    sections=[Section("", [row("Task arithmetic, tuned", 11.1), row("TIES", 22.2)])],
    tasks=TASKS,
    extras=("needs", "unseen: printed digits"),
)


def printed(
    table: Table, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(table, "results.json")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_lines_fit_and_keep_numbers_and_words_whole(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(TABLE, width, monkeypatch, capsys)
    assert max(len(line) for line in lines if not line.startswith("no room")) <= width
    text = " ".join(" ".join(lines).split())
    for whole in ("51.1 ± 0.4", "61.1 ± 0.4", "normalised", "arithmetic,"):
        assert whole in text


@pytest.mark.parametrize(
    ("width", "tasks", "extras"), [(60, False, False), (100, True, False), (160, True, True)]
)
def test_extras_go_first_then_the_worst_task_stands_for_all(
    width: int,
    tasks: bool,
    extras: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "\n".join(printed(TABLE, width, monkeypatch, capsys))
    assert ("21.1 ± 0.4" in text) is tasks
    assert ("worst" in text) is not tasks
    assert ("images" in text) is extras
    assert ("results.json" in text) is not extras
    if not tasks:
        assert "digits 11.1" in " ".join(text.split())


def test_a_pipe_gets_every_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(TABLE, "results.json")
    text = capsys.readouterr().out
    assert all(heading in text for heading in ("street numbers", "unseen: printed digits"))
    assert "results.json" not in text


def test_columns_that_are_no_tasks_are_printed_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(
        Table("", "", ("method",), COLUMNS, TABLE.without({"needs"}).sections),
        50,
        monkeypatch,
        capsys,
    )
    text = "\n".join(lines)
    assert all(f"{11.1 + 10 * place:.1f} ± 0.4" in text for place in range(len(COLUMNS)))
    assert text.count("TIES") > 1
    assert max(map(len, lines)) <= 50
