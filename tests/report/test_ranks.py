"""Average ranks of methods over tasks, and their critical difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from statsmerging.report.drawings import drawings
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.ranks import average_ranks, critical_difference
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import WriteRun


@pytest.mark.parametrize(
    ("methods", "quantile"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_the_critical_difference_is_that_of_the_published_table(
    methods: int, quantile: float
) -> None:
    """Demšar (2006), table 5a, for α = 0.05."""
    expected = quantile * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(expected, abs=2e-3)


#: Method → accuracies on five tasks.
CELLS = {
    "individual": [0.9] * 5,
    "ties": [0.5, 0.5, 0.5, 0.5, 0.9],
    "free": [0.6, 0.6, 0.6, 0.6, 0.6],
    "average": [0.4, 0.6, 0.4, 0.4, 0.4],
}


def write_tasks(runs: Path, name: str, cells: dict[str, list[float]], **facts: str) -> None:
    path = runs / name / "results.json"
    content = read_json(path)
    for method, accuracies in cells.items():
        row = content["methods"][method]
        row["accuracy"] = {f"task_{n}": value for n, value in enumerate(accuracies)}
        row["average"] = float(np.mean(accuracies))
    write_json(path, content | facts)


def test_ranks_are_averaged_over_tasks_and_ties_are_shared(write_run: WriteRun) -> None:
    runs = write_run("a", dict.fromkeys(CELLS, 0.5))
    write_tasks(runs, "a", CELLS)
    groups = runs_by_setting(runs)
    frame = average_ranks(groups)
    assert list(frame["title"]) == ["The free", "The ties", "The average"]  # no bound
    # free: 1, 1.5, 1, 1, 2; ties: 2, 3, 2, 2, 1; average: 3, 1.5, 3, 3, 3.
    assert list(frame["rank"]) == pytest.approx([1.3, 2.0, 2.7])
    assert set(frame["tasks"]) == {5}
    assert set(frame["critical"]) == {critical_difference(3, 5)}
    merged = [CELLS[name] for name in ("ties", "free", "average")]
    assert frame["p"].iloc[0] == pytest.approx(stats.friedmanchisquare(*merged).pvalue)
    drawn = [drawing for drawing in drawings(groups) if drawing.kind == "ranks"]
    assert [drawing.title for drawing in drawn] == [
        "Average ranks with critical difference · toy · vit"
    ]


def test_suites_are_ranked_together_with_the_methods_that_all_have(write_run: WriteRun) -> None:
    write_run("a", dict.fromkeys(CELLS, 0.5))
    runs = write_run("b", {**dict.fromkeys(CELLS, 0.5), "rare": 0.5}, suite={"name": "real"})
    write_tasks(runs, "a", CELLS)
    turned = {**{name: cells[::-1] for name, cells in CELLS.items()}, "rare": [1.0] * 5}
    write_tasks(runs, "b", turned, suite="real")
    frame = average_ranks(runs_by_setting(runs))
    assert set(frame["setting"]) == {"real · vit + toy · vit"}
    assert set(frame["tasks"]) == {10}
    assert list(frame["rank"]) == pytest.approx([1.3, 2.0, 2.7])


def test_few_tasks_and_few_methods_have_no_ranks(write_run: WriteRun) -> None:
    two_tasks = write_run("a", dict.fromkeys(CELLS, 0.5))
    assert average_ranks(runs_by_setting(two_tasks)).empty
    write_tasks(two_tasks, "a", CELLS)
    two = {name: CELLS[name] for name in ("individual", "ties", "free")}
    runs = write_run("b", dict.fromkeys(two, 0.5))
    write_tasks(runs, "b", two)
    assert average_ranks(runs_by_setting(runs / "b")).empty
