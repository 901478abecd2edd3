"""The table of how far learned coefficients move the weights, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statsmerging.report.groups import runs_by_setting
from statsmerging.report.page.content import page_content
from statsmerging.report.tables.content import Table
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.movement import movement_tables
from statsmerging.report.tables.text import markdown, tidy
from statsmerging.runs.results import read_results
from statsmerging.store.files import read_json, write_json
from statsmerging.store.received import ReceivedError
from tests.report.conftest import WriteRun


def tables(folder: Path) -> list[Table]:
    return movement_tables(runs_by_setting(folder))


def move(folder: Path, largest: float, relative: float) -> None:
    """Record a movement of matrices in a run without one."""
    results: dict[str, Any] = read_json(folder / "results.json")
    moved = {"matrices": {"largest_coefficient": largest, "relative": relative}}
    results["methods"]["free"] |= {"movement": moved}
    write_json(folder / "results.json", results)


def test_a_learned_method_has_a_row(singular_run: Path) -> None:
    (table,) = tables(singular_run)
    text = markdown(table)
    assert "**toy · vit** · movement of the weights" in text
    assert "| matrices: max \\|λ\\| | matrices: moved | vectors: max \\|λ\\| |" in text
    # θ₀ of the vectors is zero; numbers are no percentages, and none is the best.
    assert text.endswith("| The free | 1.500 | 0.125 | 4.000 |  |\n")
    assert "Individual" not in text


def test_latex_prints_its_signs(singular_run: Path) -> None:
    (table,) = tables(singular_run)
    text = latex(table, "movement")
    assert r"$\|$$\theta$ $-$ $\theta$$_{0}$$\|$ / $\|$$\theta$$_{0}$$\|$" in text
    assert r"The free & 1.500 & 0.125 & 4.000 &  \\" in text
    assert "U+" not in text


def test_rows_of_the_csv_have_their_unit_and_granularity(singular_run: Path) -> None:
    frame = tidy(tables(singular_run))
    assert frame["mean"].tolist() == [1.5, 0.125, 4.0]
    assert set(frame["unit"]) == {"1"}
    assert frame["column"].tolist()[-1] == "vectors: max |λ|"


def test_the_page_has_the_table(singular_run: Path) -> None:
    (shown,) = page_content(runs_by_setting(singular_run), singular_run)["movements"]
    ((_, row),) = ((section["heading"], section["rows"][0]) for section in shown["sections"])
    assert [cell and cell["text"] for cell in row["numbers"]] == ["1.500", "0.125", "4.000", None]


def test_seeds_have_a_deviation_and_settings_their_sections(write_run: WriteRun) -> None:
    for kind, seed, largest in (("hard", 0, 1.0), ("hard", 1, 2.0), ("soft", 0, 3.0)):
        averages = {"individual": 0.9, "free": 0.6}
        runs = write_run(f"{kind}-{seed}", averages, seed, labels={"kind": kind})
        move(runs / f"{kind}-{seed}", largest, largest / 10)
    (table,) = tables(runs)
    assert [section.heading for section in table.sections] == [
        "labels.kind=hard",
        "labels.kind=soft",
    ]
    hard, soft = table.rows
    texts = [number and number.text for number in hard.numbers]
    assert texts == ["1.500 ± 0.707", "0.150 ± 0.071", None, None]
    assert soft.numbers[0] is not None
    assert soft.numbers[0].text == "3.000"


def test_runs_of_earlier_versions_have_no_table(learned_run: Path) -> None:
    assert tables(learned_run) == []


@pytest.mark.parametrize("entry", [-1.0, float("nan"), "far"])
def test_a_movement_that_is_none_is_refused(singular_run: Path, entry: object) -> None:
    path = singular_run / "singular" / "results.json"
    results = read_json(path)
    results["methods"]["free"]["movement"]["matrices"]["relative"] = entry
    write_json(path, results)
    with pytest.raises(ReceivedError, match="relative"):
        read_results(path.parent)
