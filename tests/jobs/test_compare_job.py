"""``job=compare``: what it pairs, what it refuses to pair, and what it writes."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import yaml
from scipy import stats

from statsmerging.app.config import JobSettings
from statsmerging.app.run import Run
from statsmerging.errors import UserError
from statsmerging.jobs.compare import compare
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.tables.accuracy import LEVEL_METHODS, group_content
from statsmerging.report.tables.content import BEST
from statsmerging.runs.outcomes import write_outcomes
from statsmerging.runs.results import MethodResult, TaskAccuracy, run_results
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import write_records

#: Test images of each task.
IMAGES = {"mnist": 200, "svhn": 400}

Found = dict[tuple[str, str, str], dict[str, str]]


def scored(right: Mapping[str, np.ndarray], title: str) -> MethodResult:
    cells = {task: TaskAccuracy(float(r.mean()), len(r), r) for task, r in right.items()}
    return MethodResult(cells, about={"title": title})


def first_right(shares: tuple[float, float]) -> dict[str, np.ndarray]:
    """The first images of each task are right: methods differ on as few images as they can."""
    return {
        task: np.arange(count) < round(share * count)
        for (task, count), share in zip(IMAGES.items(), shares, strict=True)
    }


def finished(
    folder: Path,
    methods: Mapping[str, Mapping[str, np.ndarray]],
    *,
    seed: int = 0,
    zoo: int = 0,
    images: str = "these",
    **config: Any,
) -> Path:
    """A finished run with outcomes."""
    rows = {"individual": first_right((0.95, 0.9)), **methods}
    scores = {name: scored(right, f"The {name}") for name, right in rows.items()}
    whole = {
        "job": {"name": "merge"},
        "suite": {"name": "toy"},
        "seed": seed,
        "zoo": {"seed": zoo, "finetuning": {"seed": zoo}},
        "method": {name: {} for name in methods},
        **config,
    }
    results = run_results(scores, suite="toy", backbone="vit", seed=seed, stamps=[])
    write_json(folder / "results.json", results.as_json())
    write_records(folder, whole)
    write_outcomes(folder / "outcomes.safetensors", scores)
    data = {f"{task}/test": f"{images} of {task}" for task in IMAGES}
    manifest = read_json(folder / "manifest.json")
    weights = {"pretrained": f"zoo {zoo}"}
    write_json(folder / "manifest.json", manifest | {"data": data, "weights": weights})
    return folder


def run(runs: Path, directory: Path, **job: Any) -> Found:
    """Rows of the table of numbers, by method, by the one it is against, and by task."""
    settings = JobSettings(name="compare", runs=runs, **job)
    directory.mkdir(exist_ok=True)
    compare(
        cast(
            "Run",
            SimpleNamespace(
                config=SimpleNamespace(job=settings), directory=SimpleNamespace(path=directory)
            ),
        )
    )
    with (directory / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["method"], row["against"], row["task"]): row for row in rows}


def pairs(found: Found) -> set[tuple[str, str]]:
    """Method and method against which it was compared."""
    return {(method, against) for method, against, _ in found}


THREE = {
    "ties": first_right((0.5, 0.5)),
    "free": first_right((0.8, 0.7)),
    "average": first_right((0.8, 0.6975)),
}


def test_every_method_against_the_best(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    found = run(tmp_path / "runs", tmp_path / "out")
    assert pairs(found) == {("ties", "free"), ("average", "free")}

    far = found["ties", "free", ""]
    assert float(far["difference"]) == pytest.approx(-25)
    assert float(far["low"]) < -25 < float(far["high"]) < 0
    task = found["ties", "free", "mnist"]
    assert (int(task["better"]), int(task["worse"]), int(task["images"])) == (0, 60, 200)
    assert float(task["p"]) == pytest.approx(stats.binomtest(0, 60).pvalue)
    # Of two tasks the smaller p-value, that of svhn, is doubled.
    assert float(task["p_holm"]) == float(task["p"])
    other = found["ties", "free", "svhn"]
    assert float(other["p_holm"]) == pytest.approx(2 * stats.binomtest(0, 80).pvalue)

    near = found["average", "free", ""]
    assert float(near["difference"]) == pytest.approx(-0.125)
    assert float(near["high"]) == 0
    assert float(found["average", "free", "mnist"]["p"]) == 1


def test_bold_are_the_methods_that_are_not_below_the_first(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    run(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text()
    averages = {
        cells[1].strip(): cells[7].strip()
        for line in text.splitlines()
        if len(cells := line.split("|")) > 8 and cells[1].strip().startswith("The")
    }
    assert averages == {"The free": "**75.0**", "The average": "**74.9**", "The ties": "50.0"}
    assert "600 test images, resampled within tasks; 1 seed(s)" in text
    assert "1 zoo, fixed" in text
    tex = (tmp_path / "out" / "comparison.tex").read_text()
    assert r"\textbf{74.9}" in tex
    assert r"best \textbf{bold}" not in tex


def test_pairs_that_are_asked_for(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    asked = {"pairs": [("ties", "average")], "against": "individual"}
    found = run(tmp_path / "runs", tmp_path / "out", **asked)
    assert float(found["ties", "average", ""]["difference"]) == pytest.approx(-24.875)
    assert float(found["free", "individual", ""]["difference"]) == pytest.approx(-17.5)
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "*Against Individual*" in text
    assert "*Pairs asked for*" in text


def test_a_difference_and_its_interval_turn_with_the_pair(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    both = [("ties", "average"), ("average", "ties")]
    found = run(tmp_path / "runs", tmp_path / "out", pairs=both)
    there, back = found["ties", "average", ""], found["average", "ties", ""]
    assert float(there["difference"]) == -float(back["difference"])
    assert float(there["low"]) == -float(back["high"])
    assert float(there["high"]) == -float(back["low"])
    task, turned = found["ties", "average", "svhn"], found["average", "ties", "svhn"]
    assert (task["better"], task["worse"]) == (turned["worse"], turned["better"])
    assert task["p_holm"] == turned["p_holm"]


def test_one_method_beside_all_others(tmp_path: Path) -> None:
    """Its lead is the other's difference with the other sign, ends of the interval swapped."""
    finished(tmp_path / "runs" / "a", THREE)
    found = run(tmp_path / "runs", tmp_path / "out", against="average")
    text = (tmp_path / "out" / "comparison.md").read_text()
    beside = text[text.index("The average beside others") :]
    leads = dict(re.findall(r"\| The (\w+) \|[^|]*\|[^|]*\| ([^|]*) \|", beside))
    for other in ("ties", "free"):
        row = found[other, "average", ""]
        numbers = [-float(row[name]) for name in ("difference", "high", "low")]
        shown = [float(part) for part in re.findall(r"[+-]?[\d.]+", leads[other].replace("−", "-"))]
        assert shown == pytest.approx(numbers, abs=0.006)
    assert leads["average"] == ""  # not above itself


def test_a_key_that_changes_nothing_is_said(tmp_path: Path) -> None:
    for kind in ("hard", "soft"):
        methods = {"ties": first_right((0.7, 0.7))}
        finished(tmp_path / "runs" / kind, methods, labels={"kind": kind})
    with pytest.raises(UserError, match=r"the same on every image with each value"):
        run(tmp_path / "runs", tmp_path / "out", across="labels")


def settings_of_labels(runs: Path) -> None:
    """Two zoos with each of two settings; one method does not depend on them."""
    for zoo in (0, 1):
        for kind, share in (("hard", 0.5), ("soft", 0.6)):
            methods = {"free": first_right((share, share)), "ties": first_right((0.7, 0.7))}
            labels = {"kind": kind, "temperature": 2.0 if kind == "soft" else 1.0}
            finished(runs / f"{kind}{zoo}", methods, zoo=zoo, labels=labels)


@pytest.mark.parametrize(
    ("key", "hard", "soft"),
    [
        ("labels", "free, kind=hard, temperature=1.0", "free, kind=soft, temperature=2.0"),
        ("labels.kind", "free, hard", "free, soft"),
    ],
)
def test_a_method_with_itself_across_the_values_of_a_key(
    tmp_path: Path, key: str, hard: str, soft: str
) -> None:
    settings_of_labels(tmp_path / "runs")
    if key == "labels.kind":  # alone, without the temperature beside it
        for path in (tmp_path / "runs").iterdir():
            config = yaml.safe_load((path / "config.yaml").read_text())
            del config["labels"]["temperature"]
            manifest = read_json(path / "manifest.json")
            write_records(path, config)
            write_json(path / "manifest.json", manifest | read_json(path / "manifest.json"))
    found = run(tmp_path / "runs", tmp_path / "out", across=key)
    assert pairs(found) == {(hard, soft)}  # ties is the same with both
    row = found[hard, soft, ""]
    assert float(row["difference"]) == pytest.approx(-10)
    assert int(row["zoos"]) == 2
    assert float(row["high"]) < 0


def test_a_key_that_settings_do_not_differ_in(tmp_path: Path) -> None:
    settings_of_labels(tmp_path / "runs")
    with pytest.raises(UserError, match=r"job\.across=learner: .* differ in labels\.kind, labels"):
        run(tmp_path / "runs", tmp_path / "out", across="learner")
    # The other keys of the section differ too.
    with pytest.raises(UserError, match=r"differ in it alone"):
        run(tmp_path / "runs", tmp_path / "out", across="labels.kind")
    with pytest.raises(UserError, match=r"job\.across goes without job\.against"):
        run(tmp_path / "runs", tmp_path / "out", across="labels", against="ties")


def test_unseen_tasks_are_compared_where_asked(tmp_path: Path) -> None:
    """Equal on the seen tasks, ten points apart on the unseen one."""
    folder = finished(tmp_path / "runs" / "a", {"ties": first_right((0.5, 0.5))})
    rows = {}
    for name, share in (("individual", 0.9), ("ties", 0.5), ("free", 0.4)):
        seen, (unseen, _) = first_right((0.5, 0.5)), first_right((share, share)).items()
        cells = scored({"cars": unseen[1]}, name).seen
        rows[name] = replace(scored(seen, f"The {name}"), unseen=cells)
    results = run_results(rows, suite="toy", backbone="vit", seed=0, stamps=[])
    write_json(folder / "results.json", results.as_json())
    write_outcomes(folder / "outcomes.safetensors", rows)
    assert float(run(tmp_path / "runs", tmp_path / "seen")["free", "ties", ""]["difference"]) == 0
    found = run(tmp_path / "runs", tmp_path / "unseen", tasks="unseen")
    assert float(found["free", "ties", ""]["difference"]) == pytest.approx(-10)
    assert float(found["free", "ties", "cars"]["difference"]) == pytest.approx(-10)
    assert ("free", "ties", "mnist") not in found
    assert "unseen tasks" in (tmp_path / "unseen" / "comparison.md").read_text()


def test_seeds_are_averaged_for_each_image(tmp_path: Path) -> None:
    """Two seeds that are right on different halves are as good as one of half the images."""
    halves = {task: np.arange(count) < count / 2 for task, count in IMAGES.items()}
    for seed in (0, 1):
        drawn = {task: half if seed else ~half for task, half in halves.items()}
        finished(tmp_path / "runs" / str(seed), {"free": drawn, "ties": halves}, seed=seed)
    found = run(tmp_path / "runs", tmp_path / "out", pairs=[("free", "ties")])
    average, task = found["free", "ties", ""], found["free", "ties", "mnist"]
    assert float(average["difference"]) == 0
    # Half of the images has one vote for each method.
    assert (int(task["better"]), int(task["worse"])) == (100, 100)
    assert (int(average["seeds"]), int(average["seeds_against"])) == (2, 2)


def test_zoos_are_one_setting_and_are_resampled(tmp_path: Path) -> None:
    differences = (0.1, 0.0, -0.1)
    for zoo, difference in enumerate(differences):
        methods = {"ties": first_right((0.5, 0.5)), "free": first_right((0.5 + difference,) * 2)}
        finished(tmp_path / "runs" / str(zoo), methods, zoo=zoo)
    found = run(tmp_path / "runs", tmp_path / "out", pairs=[("free", "ties")])
    row = found["free", "ties", ""]
    assert int(row["zoos"]) == 3
    assert float(row["difference"]) == pytest.approx(0, abs=1e-9)
    assert float(row["low"]) < -6
    assert float(row["high"]) > 6
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "3 zoos, resampled" in text


def test_methods_of_other_experts_are_not_paired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished(tmp_path / "runs" / "a", {"ties": first_right((0.5, 0.5))}, zoo=0)
    finished(tmp_path / "runs" / "b", {"free": first_right((0.6, 0.6))}, zoo=1)
    with pytest.raises(UserError, match="no setting there has two methods to compare"):
        run(tmp_path / "runs", tmp_path / "out")
    assert "toy · vit: ties and free have no experts in common, not paired" in caplog.messages


def test_other_test_images_are_not_paired(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finished(tmp_path / "runs" / "a", {"ties": THREE["ties"], "free": THREE["free"]})
    finished(tmp_path / "runs" / "b", {"average": THREE["average"]}, images="others", seed=1)
    found = run(tmp_path / "runs", tmp_path / "out")
    assert pairs(found) == {("ties", "free")}
    assert any("2 different sets of test images, not paired" in line for line in caplog.messages)


def test_other_settings_are_not_paired(tmp_path: Path) -> None:
    for granularity, names in {
        "layer_wise": ("ties", "free"),
        "task_wise": ("ties", "average"),
    }.items():
        methods = {name: THREE[name] for name in names}
        finished(tmp_path / "runs" / granularity, methods, granularity=granularity)
    found = run(tmp_path / "runs", tmp_path / "out")
    assert pairs(found) == {("ties", "free"), ("ties", "average")}
    assert {row["granularity"] for row in found.values()} == {"layer_wise", "task_wise"}


def test_runs_without_outcomes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = finished(tmp_path / "runs" / "a", {"ties": THREE["ties"]})
    (old / "outcomes.safetensors").unlink()
    with pytest.raises(UserError, match=r"no run there has outcomes.safetensors"):
        run(tmp_path / "runs", tmp_path / "out")
    finished(tmp_path / "runs" / "b", {"free": THREE["free"], "average": THREE["average"]}, seed=1)
    found = run(tmp_path / "runs", tmp_path / "out")
    assert pairs(found) == {("average", "free")}
    assert any(f"outcomes.safetensors left out: {old}" in line for line in caplog.messages)


def test_a_run_with_a_damaged_file_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    damaged = finished(tmp_path / "runs" / "b", {"other": THREE["ties"]}, seed=1)
    (damaged / "outcomes.safetensors").write_bytes(b"damaged")
    found = run(tmp_path / "runs", tmp_path / "out")
    assert "other" not in {method for method, _ in pairs(found)}
    assert any(line.startswith(f"left out: {damaged}/outcomes") for line in caplog.messages)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"against": "tsv_m"}, "job.against: no run has method tsv_m; choose of individual, ties"),
        ({"pairs": [("ties", "x")]}, "job.pairs: no run has method x; choose of individual, ties"),
    ],
)
def test_unknown_methods(tmp_path: Path, job: dict[str, Any], expected: str) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    with pytest.raises(UserError) as refused:
        run(tmp_path / "runs", tmp_path / "out", **job)
    assert str(refused.value).startswith(expected)
    assert not any((tmp_path / "out").iterdir())


def test_a_file_of_the_user_is_not_overwritten(tmp_path: Path) -> None:
    finished(tmp_path / "runs" / "a", THREE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "comparison.md").write_text("mine")
    with pytest.raises(UserError, match="nothing was overwritten"):
        run(tmp_path / "runs", tmp_path / "out")
    assert (tmp_path / "out" / "comparison.md").read_text() == "mine"


def test_the_accuracy_table_marks_all_methods_that_are_level(tmp_path: Path) -> None:
    folder = finished(tmp_path / "runs" / "a", THREE)

    def best() -> tuple[set[str], str]:
        (group,) = runs_by_setting(tmp_path / "runs")
        table = group_content(group)
        column = table.columns.index("average")
        marked = {
            row.facts["method"]
            for row in table.rows
            if (number := row.numbers[column]) is not None and number.place == BEST
        }
        return marked, table.caption

    told = LEVEL_METHODS.format(resampled="test images")
    marked, caption = best()
    assert marked == {"free", "average"}
    assert told in caption
    (folder / "outcomes.safetensors").unlink()
    marked, caption = best()
    assert marked == {"free"}
    assert told not in caption


def test_the_accuracy_table_marks_methods_that_are_level_over_zoos(tmp_path: Path) -> None:
    """Every zoo alone tells two methods apart, but they take turns; a third has one zoo alone."""
    for zoo, (first, second) in enumerate([(0.7, 0.6), (0.6, 0.7), (0.7, 0.62)]):
        methods = {"ties": first_right((first,) * 2), "free": first_right((second,) * 2)}
        methods["average"] = first_right((0.3, 0.3))
        if zoo == 2:
            methods["lone"] = first_right((0.8, 0.8))
        finished(tmp_path / "runs" / str(zoo), methods, zoo=zoo)
    (group,) = runs_by_setting(tmp_path / "runs")
    table = group_content(group)
    column = table.columns.index("average")
    numbers = {row.facts["method"]: row.numbers[column] for row in table.rows}
    assert {name for name, number in numbers.items() if number and number.place == BEST} == {
        "ties",
        "free",
    }
    assert LEVEL_METHODS.format(resampled="test images and zoos") in table.caption
    assert "intervals over few zoos are too narrow" in table.caption
    assert group.paired is not None
    assert numbers["free"] is not None
    assert numbers["free"].mean == pytest.approx(100 * group.paired.average("free"))
