"""Tables beyond the terminal: LaTeX, CSV, published rows, and one row a setting for sweeps."""

from __future__ import annotations

import re
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from statsmerging.report.files import file_list, file_names, markdown_page, write_tables
from statsmerging.report.groups import runs_by_setting
from statsmerging.report.tables.accuracy import accuracy_content, group_content
from statsmerging.report.tables.by_setting import sweep_tables
from statsmerging.report.tables.content import BEST, SECOND, Number, Row, with_places
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.text import markdown, tidy
from statsmerging.runs.published import published_tasks
from statsmerging.store.files import read_json, write_json
from statsmerging.store.written_files import WrittenFiles
from tests.report.conftest import WriteRun, results, typed

AVERAGES = {"individual": 0.9, "ties": 0.6, "free": 0.7, "pcb": 0.5}


def places(*means: float) -> list[int]:
    rows = with_places([Row((), (Number(mean),)) for mean in means])
    return [number.place for row in rows for number in row.numbers if number is not None]


def test_best_and_second_best_are_told_as_printed() -> None:
    assert places(70.0, 80.0, 60.0) == [SECOND, BEST, 0]
    assert places(80.04, 80.01, 60.0) == [BEST, BEST, 0]  # both are printed 80.0
    assert places(80.0, 70.01, 69.99) == [BEST, SECOND, SECOND]
    assert places(80.0, 70.0) == [BEST, 0]  # the second of two is the worst
    assert places(80.0) == [0]


def test_a_second_best_is_underlined_and_bounds_are_not() -> None:
    lines = markdown(accuracy_content([typed(results(0, AVERAGES))])).splitlines()
    assert lines[4].startswith("| Individual |  | 95.0 |")
    assert "| <ins>65.0</ins> |" in lines[5]
    assert "| **75.0** |" in lines[6]


def test_latex_is_balanced_and_escaped() -> None:
    runs = [results(seed, AVERAGES | {"free": 0.7 + 0.02 * seed}) for seed in (0, 1)]
    for run in runs:
        run["stamps"] = ["100 % test_images & labels"]
    text = latex(
        accuracy_content(
            [*map(typed, runs)], ("trainer.learning_rate=0.1",), {"checkpoints": "f_b"}
        ),
        "x",
    )
    body = re.sub(r"(?m)^%.*$", "", text)
    assert body.count("{") == body.count("}") + body.count(r"\{") - body.count(r"\}")
    assert re.findall(r"\\(begin|end)\{([\w*]+)\}", body) == [
        ("begin", "table*"),
        ("begin", "tabular"),
        ("end", "tabular"),
        ("end", "table*"),
    ]
    assert not re.search(r"(?<!\\)[_#]", re.sub(r"\\label\{.*?\}", "", body))
    assert "learning rate: 0.1" in body
    assert r"100 \% test\_images \& labels" in body  # the stamp stands in the caption
    assert r"checkpoints: f\_b" in body
    assert r"\textbf{76.0} $\pm$ 1.4" in body
    assert r"\underline{65.0}" in body
    rows = [line for line in body.splitlines() if line.endswith(r" \\") and "&" in line]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}
    for rule in ("toprule", "midrule", "bottomrule"):
        assert rf"\{rule}" in body


def test_deviations_are_those_of_a_sample(write_run: WriteRun) -> None:
    for seed, average in enumerate([0.60, 0.62, 0.67]):
        runs = write_run(f"seed-{seed}", {"individual": 0.9, "free": average}, seed)
    frame = tidy([group_content(group) for group in runs_by_setting(runs)])
    row = frame[(frame["method"] == "free") & (frame["column"] == "average")].iloc[0]
    assert row["mean"] == pytest.approx(63.0)
    assert row["std"] == pytest.approx(sqrt((9 + 1 + 16) / 2))
    assert (row["n"], row["unit"], row["suite"], row["source"]) == (3, "%", "toy", "ours")


def eight_tasks(**facts: str) -> dict[str, Any]:
    """Results on the tasks of the published tables."""
    run = results(0, AVERAGES, backbone="vit_b_32") | facts
    for row in run["methods"].values():
        row["accuracy"] = dict.fromkeys(sorted(published_tasks()), row["average"])
    return run


def published_cells(run: dict[str, Any], checkpoints: str) -> dict[str, dict[str, float]]:
    """Label of a published row → column → number, of the table of this run."""
    content = accuracy_content([typed(run)], (), {"checkpoints": checkpoints})
    return {
        row.labels[0]: {
            name: round(cell.mean, 2)
            for name, cell in zip(content.columns, row.numbers, strict=True)
            if cell
        }
        for row in content.rows
        if row.facts["source"] == "published"
    }


def test_published_rows_stand_beside_ours_and_are_never_best() -> None:
    run = eight_tasks()
    content = accuracy_content([typed(run)], (), {"checkpoints": "fusion_bench"})
    titles = [row.labels[0] for row in content.rows]
    assert "published: tanganke/fusion_bench" in content.caption
    assert "WEMoE, published" in titles
    assert titles.index("WEMoE, published") > titles.index("The pcb")
    published = [row for row in content.rows if row.facts["source"] == "published"]
    assert {number.place for row in published for number in row.numbers if number} == {0}
    individual = next(row for row in published if row.facts["method"] == "individual")
    # 90.3 is published; the cells' mean is another number.
    cells = dict(zip(content.columns, individual.numbers, strict=True))
    assert cells["average"] is not None
    assert cells["normalised"] is not None
    assert cells["average"].mean == pytest.approx(90.375)
    assert cells["normalised"].mean == pytest.approx(100.0)
    best = next(row for row in content.rows if row.facts["method"] == "free")
    assert {number.place for number in best.numbers if number} == {BEST}


def test_published_accuracies_on_unseen_tasks_stand_beside_ours() -> None:
    run = eight_tasks()
    for row in run["methods"].values():
        cells = row["accuracy"]
        row["unseen"] = {"accuracy": {task: cells.pop(task) for task in ("mnist", "eurosat")}}
    assert published_cells(run, "fusion_bench")["WEMoE, published"] == {
        "average": 86.6,
        "unseen: mnist": 78.3,
        "unseen: eurosat": 44.0,
    }
    # A source that prints the seen cells as well: their mean is 81.87, printed as 81.9.
    paper = published_cells(run, "task_vectors")
    row = paper["StatsMerging layer-wise, published by StatsMerging"]
    assert {"average": 81.87, "dtd": 75.2, "unseen: mnist": 85.1}.items() <= row.items()


def test_the_papers_rows_stand_beside_the_familys_own() -> None:
    rows = published_cells(eight_tasks(), "task_vectors")
    own, papers = rows["Individual, published"], rows["Individual, published by StatsMerging v1"]
    assert (own["sun397"], papers["sun397"]) == (79.2, 75.3)
    assert own["normalised"] == papers["normalised"] == 100.0
    layer_wise = rows["StatsMerging layer-wise, published by StatsMerging v1"]
    assert layer_wise["average"] == 84.47  # printed as 84.5
    assert 90 < layer_wise["normalised"] < 100
    # Of the later version an average is known and nothing else.
    later = rows["StatsMerging++ layer-wise, published by StatsMerging v2"]
    assert later == {"average": 94.5}
    table = accuracy_content([typed(eight_tasks())], (), {"checkpoints": "task_vectors"})
    assert "WUDI-Merging, README; StatsMerging v1, the NeurIPS" in table.caption
    shown = tidy([table])
    assert not shown[shown["source"] == "published"].duplicated(["method", "column"]).any()
    assert "StatsMerging v1" not in " ".join(published_cells(eight_tasks(), "fusion_bench"))


def test_the_papers_labels_stand_beside_a_merge_of_its_four_tasks() -> None:
    run = results(0, AVERAGES, backbone="vit_b_32")
    for row in run["methods"].values():
        row["accuracy"] = dict.fromkeys(("stanford_cars", "eurosat", "resisc45", "gtsrb"), 0.5)
    rows = published_cells(run, "task_vectors")
    assert len(rows) == 4
    teachers = rows["StatsMerging layer-wise (teachers' labels), published by StatsMerging"]
    # 83.5 is published; the cells' mean is another number.
    assert (teachers["average"], teachers["stanford_cars"]) == (85.25, 68.7)
    assert published_cells(run, "fusion_bench") == {}


@pytest.mark.parametrize(
    ("run", "checkpoints"),
    [
        (eight_tasks(backbone="vit"), "fusion_bench"),
        (eight_tasks(corruption="contrast 2"), "fusion_bench"),
        (eight_tasks(), "finetuned"),
        (results(0, AVERAGES, backbone="vit_b_32"), "fusion_bench"),
    ],
)
def test_another_setting_has_no_published_rows(run: dict[str, Any], checkpoints: str) -> None:
    content = accuracy_content([typed(run)], (), {"checkpoints": checkpoints})
    assert {row.facts["source"] for row in content.rows} == {"ours"}


def test_a_sweep_has_one_row_a_setting(write_run: WriteRun) -> None:
    for rate in (0.1, 0.01):
        for seed in range(2 if rate == 0.1 else 1):
            averages = {"individual": 0.9, "ties": 0.5, "free": 0.6 + rate + seed / 50}
            trainer = {"learning_rate": rate}
            runs = write_run(f"{rate}-{seed}", averages, seed, trainer=trainer)
    (table,) = sweep_tables(runs_by_setting(runs))
    assert table.labels == ("trainer.learning_rate", "method", "seeds")
    assert table.columns == ("average", "normalised")
    assert [
        (*row.labels, *(number.text for number in row.numbers if number)) for row in table.rows
    ] == [
        # What the setting does not touch has one row.
        ("", "Individual", "2", "90.0", "100.0"),
        ("", "The ties", "2", "50.0", "55.6"),
        ("0.01", "The free", "1", "61.0", "67.8"),
        ("0.1", "The free", "2", "71.0 ± 1.4", "78.9 ± 1.6"),
    ]


def test_settings_with_other_images_are_no_rivals(
    corrupted_runs: Path, write_run: WriteRun
) -> None:
    (table,) = sweep_tables(runs_by_setting(corrupted_runs))
    marks = {number.place for row in table.rows for number in row.numbers if number}
    assert marks == {0}


@pytest.mark.parametrize(
    "key",
    ["heads", "heterogeneous.experts", "heterogeneous.teachers", "heterogeneous.distillation"],
)
def test_settings_with_other_experts_are_no_rivals(write_run: WriteRun, key: str) -> None:
    """Each has an individual model of its own, and no best one."""
    group, _, part = key.partition(".")
    for kind, individual in (("own", 0.9), ("probed", 0.5)):
        config = {group: {part: {"kind": kind}} if part else {"kind": kind}}
        runs = write_run(kind, {"individual": individual, "ties": 0.4}, **config)
    (table,) = sweep_tables(runs_by_setting(runs))
    assert [(row.labels[:2], row.numbers[0].text) for row in table.rows if row.numbers[0]] == [
        (("own", "Individual"), "90.0"),
        (("probed", "Individual"), "50.0"),
        (("own", "The ties"), "40.0"),
        (("probed", "The ties"), "40.0"),
    ]
    assert {number.place for row in table.rows for number in row.numbers if number} == {0}


def test_families_of_experts_never_share_a_table(write_run: WriteRun) -> None:
    for family in ("task_vectors", "fusion_bench"):
        for rate in (1, 2):
            config = {"zoo": {"kind": family}, "trainer": {"learning_rate": rate}}
            averages = {"individual": 0.9, "ties": 0.4 + rate / 10}
            runs = write_run(f"{family}-{rate}", averages, **config)
    tables = sweep_tables(runs_by_setting(runs))
    assert [table.labels[0] for table in tables] == ["trainer.learning_rate"] * 2
    assert ["fusion_bench" in table.caption for table in tables] == [True, False]


def test_a_run_that_names_its_experts_by_an_older_key_is_of_the_same_family(
    write_run: WriteRun,
) -> None:
    for key, rate in (("name", 1), ("kind", 2)):
        config = {"zoo": {key: "task_vectors"}, "trainer": {"learning_rate": rate}}
        runs = write_run(key, {"individual": 0.9, "ties": 0.4 + rate / 10}, **config)
    groups = runs_by_setting(runs)
    assert {group.settings["zoo.kind"] for group in groups} == {"task_vectors"}
    assert not any("zoo.name" in group.settings for group in groups)
    (table,) = sweep_tables(groups)
    assert table.labels[0] == "trainer.learning_rate"


def test_a_stamp_of_any_run_is_one_of_the_table(write_run: WriteRun) -> None:
    """The methods of one setting may have been run one by one."""
    write_run("honest", {"individual": 0.9, "ties": 0.5, "free": 0.6})
    runs = write_run("stamped", {"individual": 0.9, "released_code": 0.8})
    path = runs / "stamped" / "results.json"
    write_json(path, read_json(path) | {"stamps": ["not label-free"]})
    (group,) = runs_by_setting(runs)
    assert group_content(group).title == "toy · vit · seed 0 · not label-free"


def test_a_stamped_setting_is_no_rival_of_an_honest_one(write_run: WriteRun) -> None:
    for kind, average in {"hard": 0.7, "soft": 0.6, "truth": 0.8}.items():
        runs = write_run(kind, {"individual": 0.9, "free": average}, labels={"kind": kind})
    path = runs / "truth" / "results.json"
    write_json(path, read_json(path) | {"stamps": ["not label-free"]})
    (table,) = sweep_tables(runs_by_setting(runs))
    places = {row.labels[0]: row.numbers[0].place for row in table.rows if row.numbers[0]}
    assert places == {"": 0, "hard": 1, "soft": 0, "truth": 0}


def test_a_stamp_of_some_settings_says_of_which(write_run: WriteRun) -> None:
    kinds = {"hard": [], "soft": ["by teachers"], "truth": ["by teachers", "not label-free"]}
    for kind, stamps in kinds.items():
        runs = write_run(kind, AVERAGES, labels={"kind": kind})
        path = runs / kind / "results.json"
        write_json(path, read_json(path) | {"stamps": ["on test images", *stamps]})
    (table,) = sweep_tables(runs_by_setting(runs))
    assert table.title == (
        "toy · vit · on test images · by teachers (2 of 3 settings)"
        " · not label-free (labels.kind=truth)"
    )


def test_a_title_says_nothing_twice() -> None:
    run = results(0, AVERAGES, labels="hard", learner="free", corruption="contrast 2, c, p")
    setting = ("labels.kind=hard", "corruption.kind=contrast", "corruption.tasks=[mnist]")
    title = accuracy_content([typed(run)], setting).title
    assert title == (
        "toy · contrast 2, c, p · vit · free · labels.kind=hard · corruption.tasks=[mnist] · seed 0"
    )
    clean = accuracy_content([typed(run | {"corruption": "none"})], ("corruption.kind=none",)).title
    assert clean == "toy · vit · free · hard · corruption.kind=none · seed 0"


def test_files_have_names_that_differ() -> None:
    assert file_names(["a · b_C=0.1", "a · b_c=0.1", "a/b"]) == ["a_b_c_0-1", "a_b_c_0-1_2", "a_b"]
    assert file_names(["a++"]) == ["app"]


def test_all_files_of_tables_are_written(learned_run: Path, tmp_path: Path) -> None:
    groups = runs_by_setting(learned_run)
    tables = {"accuracy": [group_content(group) for group in groups], "sweep": sweep_tables(groups)}
    write_tables(tables, WrittenFiles(tmp_path, ".record.json", file_list(tables, (), ())))
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "accuracy.csv",
        "accuracy_toy_vit_seed_0.tex",
    ]
    text = markdown_page(tables, groups, {"A figure": "a_figure"})
    assert "## Warnings\n\n- a task is sacrificed\n" in text
    assert "| toy · vit | mnist | resnet18 | 95.0 | 90.5 | 200 |" in text
    assert "![A figure](figures/a_figure.png)" in text
