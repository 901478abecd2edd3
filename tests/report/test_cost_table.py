"""The table of what methods cost, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statsmerging.report.drawings import drawings
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.page.content import page_content
from statsmerging.report.tables.content import Table
from statsmerging.report.tables.cost import cost_tables
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.text import markdown, tidy
from statsmerging.runs.results import read_results
from statsmerging.store.files import read_json, write_json
from statsmerging.store.received import ReceivedError
from tests.report.conftest import WriteRun


def tables(folder: Path) -> list[Table]:
    return cost_tables(runs_by_setting(folder))


def test_numbers_are_means_over_seeds_in_their_units(costed_runs: Path) -> None:
    (table,) = tables(costed_runs)
    cells = {
        row.labels[0]: {
            heading: number and number.text
            for heading, number in zip(table.columns, row.numbers, strict=True)
        }
        for row in table.rows
    }
    # Phases that no row has have no column; a phase that one row lacks has a gap.
    assert cells["The free"] == {
        "total, s": "12.00 ± 0.71",
        "bank, s": "2.00",
        "evidence, s": "1.00",
        "learning, s": "10.50 ± 0.71",
        "merging, s": "0.50",
        "scoring, s": "9.00",
        "memory, MiB": "3.0",
        "images": "2560",
        "forward passes": "3560",
        "backward passes": "2560",
        "parameters": "1264",
    }
    assert cells["The ties"]["learning, s"] is None
    assert cells["The ties"]["total, s"] == "0.25"
    assert cells["The ties"]["forward passes"] == "0"
    assert list(cells) == ["The ties", "The free"]  # bounds cost nothing


def test_the_caption_tells_what_seconds_do_not(costed_runs: Path) -> None:
    (table,) = tables(costed_runs)
    assert "in part read from the cache of earlier runs: evidence" in table.caption
    assert "continued after a kill" in table.caption
    assert "the kill: The free;" in table.caption
    assert "resident memory" in table.caption
    (undisturbed,) = tables(costed_runs / "costed-0")
    assert "cache" not in undisturbed.caption
    assert "kill" not in undisturbed.caption


def test_rows_of_the_csv_have_their_unit(costed_runs: Path) -> None:
    frame = tidy(tables(costed_runs)).set_index(["method", "column"])
    assert frame.loc[("free", "memory, MiB"), "unit"] == "MiB"
    assert frame.loc[("free", "learning, s"), "unit"] == "s"
    assert frame.loc[("free", "learning, s"), "n"] == 2
    assert frame.loc[("free", "images"), "mean"] == 2560


def test_markdown_latex_and_page_have_the_table(costed_runs: Path) -> None:
    (table,) = tables(costed_runs)
    assert "**toy · vit** · cost of a method" in markdown(table)
    assert r"The ties & 0.25 & 2.00 &" in latex(table, "cost")
    (shown,) = page_content(runs_by_setting(costed_runs), costed_runs)["costs"]
    ties, _ = shown["sections"][0]["rows"]
    assert ties["numbers"][0]["text"] == "0.25"


def test_runs_of_earlier_versions_have_no_table_and_no_figure(write_run: WriteRun) -> None:
    runs = write_run("old", {"individual": 0.9, "ties": 0.5, "free": 0.6})
    assert tables(runs) == []
    assert "cost" not in {drawing.kind for drawing in drawings(runs_by_setting(runs))}


def test_counts_without_measurements_have_a_row(costed_runs: Path) -> None:
    path = costed_runs / "costed-0" / "results.json"
    content = read_json(path)
    del content["measured"]
    write_json(path, content)
    (table,) = tables(costed_runs / "costed-0")
    assert table.columns == ("images", "forward passes", "backward passes", "parameters")


@pytest.mark.parametrize(
    ("place", "entry"),
    [
        (("methods", "free", "cost", "images"), -1),
        (("methods", "free", "cost", "parameters"), 1.5),
        (("measured", "free", "seconds", "learning"), -0.5),
        (("measured", "free", "seconds", "learning"), float("nan")),
        (("measured", "free", "memory", "learning"), "much"),
        (("measured", "free", "memory_of"), "disk"),
    ],
)
def test_a_cost_that_is_none_is_refused(
    costed_runs: Path, place: tuple[str, ...], entry: object
) -> None:
    path = costed_runs / "costed-0" / "results.json"
    content: dict[str, Any] = read_json(path)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = entry
    write_json(path, content)
    with pytest.raises(ReceivedError, match=place[-1]):
        read_results(path.parent)
