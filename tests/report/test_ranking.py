"""The ranking of a folder of runs: its order, its intervals, and who competes with whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statsmerging.report.groups import runs_by_setting
from statsmerging.report.page.answer import headline, task_table
from statsmerging.report.ranking import Contest, contests
from statsmerging.runs.outcomes import write_outcomes
from statsmerging.runs.results import MethodResult, TaskAccuracy
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import WriteRun

TASKS, IMAGES = ("mnist", "sign_digits"), 200


def scored_run(write_run: WriteRun, name: str, right: dict[str, int], **about: Any) -> Path:
    """A run whose methods have the first images of each task right."""
    runs = write_run(name, {method: count / IMAGES for method, count in right.items()}, **about)
    path = runs / name / "results.json"
    content = read_json(path)
    scores = {}
    for method, count in right.items():
        cells = {
            task: TaskAccuracy(count / IMAGES, IMAGES, np.arange(IMAGES) < count) for task in TASKS
        }
        scores[method] = MethodResult(cells)
        accuracy = dict.fromkeys(TASKS, count / IMAGES)
        content["methods"][method] |= {"accuracy": accuracy, "n": dict.fromkeys(TASKS, IMAGES)}
    write_json(path, content)
    write_outcomes(runs / name / "outcomes.safetensors", scores)
    return runs


def only(runs: Path) -> Contest:
    (contest,) = contests(runs_by_setting(runs))
    return contest


def order(contest: Contest) -> list[tuple[int, str, bool]]:
    return [(place.rank, place.method, place.level) for place in contest.places]


def test_methods_stand_in_the_order_of_their_averages(write_run: WriteRun) -> None:
    right = {"individual": 180, "ties": 100, "free": 140, "dare": 139}
    contest = only(scored_run(write_run, "a", right))
    assert order(contest) == [(1, "free", True), (2, "dare", True), (3, "ties", False)]
    first, second, last = contest.places
    assert (first.average, last.average) == (0.7, 0.5)
    assert last.behind == pytest.approx(-0.2)
    assert first.interval is not None
    assert second.gap is not None
    assert last.gap is not None
    assert first.interval[0] < 0.7 < first.interval[1]
    assert first.gap is None
    assert second.gap[1] == 0.0  # resamples without the one image on which the two differ
    assert last.gap[1] < 0
    assert [bound.method for bound in contest.bounds] == ["individual"]
    assert headline(contest).endswith("The dare is not significantly below.")


def test_without_outcomes_nothing_is_called_level(write_run: WriteRun) -> None:
    contest = only(write_run("a", {"individual": 0.9, "ties": 0.5, "free": 0.6}))
    assert order(contest) == [(1, "free", True), (2, "ties", False)]
    assert contest.zoos == 0
    assert headline(contest).endswith("the highest of 2; the differences could not be tested.")


def test_settings_of_one_problem_compete(write_run: WriteRun) -> None:
    """A method that does not depend on the setting has one place."""
    for kind, count in (("hard", 120), ("soft", 150)):
        right = {"individual": 180, "ties": 100, "free": count}
        runs = scored_run(write_run, kind, right, labels={"kind": kind})
    places = only(runs).places
    assert [(place.method, place.setting) for place in places] == [
        ("free", "labels: soft"),
        ("free", "labels: hard"),
        ("ties", ""),
    ]
    assert all(place.interval is not None for place in places)


def test_other_images_are_another_contest(write_run: WriteRun) -> None:
    for severity in (1, 3):
        corruption = {"kind": "contrast", "severity": severity}
        averages = {"individual": 0.9, "ties": 0.5}
        runs = write_run(f"{severity}", averages, corruption=corruption)
    assert [each.own for each in contests(runs_by_setting(runs))] == ["severity: 1", "severity: 3"]


def test_a_stamped_run_does_not_compete_with_honest_ones(write_run: WriteRun) -> None:
    for kind in ("hard", "ground_truth"):
        runs = write_run(kind, {"individual": 0.9, "free": 0.5}, labels={"kind": kind})
    path = runs / "ground_truth" / "results.json"
    write_json(path, read_json(path) | {"stamps": ["not label-free"]})
    found = contests(runs_by_setting(runs))
    assert [len(contest.places) for contest in found] == [1, 1]
    assert sorted(contest.problem for contest in found) == [
        "toy · vit",
        "toy · vit · not label-free",
    ]


def test_a_method_of_fewer_zoos_has_no_rank(write_run: WriteRun) -> None:
    for zoo in (0, 1):
        right = {"individual": 180, "ties": 100, **({} if zoo else {"free": 150})}
        runs = scored_run(write_run, f"zoo-{zoo}", right, zoo={"seed": zoo})
    contest = only(runs)
    assert order(contest) == [(1, "ties", True), (0, "free", False)]
    assert contest.places[0].repeated == "2 zoos × 1 seed"
    assert contest.zoos == 2


def test_colours_of_tasks_are_shares_of_the_individual_models(write_run: WriteRun) -> None:
    table = task_table(
        only(scored_run(write_run, "a", {"individual": 180, "ties": 126, "free": 72}))
    )
    cells = {row["title"]: row["cells"][0] for row in table["rows"]}
    shades = {title: cell["shade"] for title, cell in cells.items()}
    assert shades == {"The ties": 50.0, "The free": 0.0, "Individual": 100.0}
    assert [title for title, cell in cells.items() if cell["best"]] == ["The ties"]
