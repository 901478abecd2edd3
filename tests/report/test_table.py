"""Tables: means and deviations over seeds, the best in bold, Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from statsmerging.errors import UserError
from statsmerging.report.groups import overruled_runs, runs_by_setting
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import markdown, plain_table, tidy
from statsmerging.store.files import write_json
from tests.report.conftest import typed, write_records


def results(seed: int, merged: float, granularity: str = "layer_wise") -> dict[str, Any]:
    def row(accuracy: float) -> dict[str, Any]:
        numbers = {"accuracy": {"mnist": accuracy}, "average": accuracy, "normalised_average": 1.0}
        return {**numbers, "n": {"mnist": 10}}

    about = {"title": "StatsMerging", "needs": "unlabeled images", "returns": "state dict"}
    rows = {
        "individual": row(0.95),
        "simple_average": {"title": "Simple average", "needs": "nothing", **row(0.55)},
        "stats_merging": {**about, **row(merged)},
    }
    facts = {"suite": "toy", "backbone": "vit", "granularity": granularity, "stamps": []}
    return {**facts, "learner": "shared", "labels": "hard", "seed": seed, "methods": rows}


def markdown_table(runs: list[dict[str, Any]]) -> str:
    return markdown(accuracy_content([*map(typed, runs)]))


def test_several_seeds_give_mean_and_deviation() -> None:
    text = markdown_table([results(0, 0.6), results(1, 0.7), results(2, 0.8)])
    assert "**toy · vit · layer_wise · shared · hard · seed 0, 1, 2**" in text
    assert "| StatsMerging | images | **70.0 ± 10.0** | **70.0 ± 10.0** |" in text
    assert "| Simple average | – | 55.0 | 55.0 |" in text
    # The upper bound is never marked as the best method.
    assert "| Individual |  | 95.0 | 95.0 |" in text


def test_a_method_that_varies_anywhere_shows_its_deviation_everywhere() -> None:
    runs = [results(0, 0.6), results(1, 0.7)]
    assert "| **65.0 ± 7.1** | **65.0 ± 7.1** | **100.0 ± 0.0** |" in markdown_table(runs)


def test_agreement_is_a_column_where_rows_have_it() -> None:
    run = results(0, 0.6)
    for row, agreement in [("simple_average", 0.5), ("stats_merging", 0.75)]:
        run["methods"][row]["teacher_agreement"] = agreement
    lines = markdown_table([run]).splitlines()
    assert lines[2].endswith("| normalised | agreement |")
    assert lines[4].endswith("| 100.0 |  |")
    assert lines[6].endswith("| **75.0** |")


def with_methods(**parameters: dict[str, Any]) -> dict[str, Any]:
    """Results of a layer-wise setting with a shared learner, and these learned methods."""
    run = results(0, 0.6)
    row = run["methods"].pop("stats_merging")
    run["methods"] |= {name: row | {"parameters": each} for name, each in parameters.items()}
    return run


LAYERS = {"granularity": "layer_wise", "learner": "shared"}
DIRECTIONS = {"granularity": "singular_wise", "learner": "free"}


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ({"ours": LAYERS}, "layer_wise · shared"),
        ({"ours": DIRECTIONS}, "singular_wise · free"),
        # A control has another learner than the setting, as its own title tells.
        ({"ours": LAYERS, "other": DIRECTIONS}, "layer_wise, singular_wise · shared"),
        ({}, "layer_wise · shared"),
    ],
)
def test_a_title_tells_what_the_methods_learned(
    methods: dict[str, dict[str, Any]], told: str
) -> None:
    assert f"**toy · vit · {told} · hard · seed 0**" in markdown_table([with_methods(**methods)])


def test_a_row_of_the_csv_has_its_own_granularity() -> None:
    run = typed(with_methods(ours=LAYERS, other=DIRECTIONS))
    frame = tidy([accuracy_content([run])])
    told = frame.groupby("method")[["granularity", "learner"]].first().to_dict("index")
    assert told["ours"] == told["simple_average"] == LAYERS
    assert told["other"] == DIRECTIONS
    # Where settings differ in it, it is what tells their rows apart.
    of_setting = accuracy_content([run], ["granularity=layer_wise"])
    other = tidy([of_setting]).set_index("method").loc["other"]
    assert set(other["granularity"]) == {"layer_wise"}


def test_the_plain_table_has_numbers_and_gaps() -> None:
    run = results(0, 0.6)
    run["methods"]["stats_merging"]["teacher_agreement"] = 0.75
    table = accuracy_content([typed(run)])
    headings, rows = [*table.labels, *table.columns], plain_table(table, run["methods"])
    assert headings == ["method", "needs", "mnist", "average", "normalised", "agreement"]
    assert rows[0] == ["Individual", "", 95.0, 95.0, 100.0, None]
    assert rows[2] == ["StatsMerging", "images", 60.0, 60.0, 100.0, 75.0]


def test_what_is_not_one_static_model_stands_apart() -> None:
    run = results(0, 0.6)
    router = {"title": "Router", "needs": "unlabeled images", "returns": "router"}
    for row in run["methods"].values():
        row["unseen"] = {"accuracy": {"svhn": 0.25}}
    run["methods"]["router"] = {**router, **run["methods"]["individual"]}
    del run["methods"]["router"]["unseen"]  # it knows no unseen task
    lines = markdown_table([run]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == [
        "Individual",
        "*One static model*",
        "Simple average",
        "StatsMerging",
        "*Not one static model*",
        "Router",
    ]
    # Best among its own kind, not among all.
    assert "| StatsMerging | images | **60.0** |" in lines[7]
    assert lines[7].endswith("| **25.0** |")
    assert lines[9].endswith("|  |")


def test_a_method_that_some_runs_lack_says_how_many_seeds_it_has() -> None:
    runs = [results(seed, 0.6 + seed / 10) for seed in range(3)]
    assert "| Simple average |" in markdown_table(runs)
    del runs[2]["methods"]["simple_average"]
    assert "| Simple average (2 of 3 seeds) |" in markdown_table(runs)
    del runs[1]["methods"]["simple_average"]
    assert "| Simple average |" in markdown_table(runs)
    assert "a row without ± ran with one seed or draws nothing at random" in markdown_table(runs)


def test_a_seed_counts_once() -> None:
    once, twice = [results(0, 0.6), results(1, 0.7)], [results(0, 0.6), results(1, 0.7)]
    assert markdown_table([*once, results(1, 0.7)]) == markdown_table(twice)


def test_titles_say_which_methods_ran_and_seeds_are_seeds_everywhere(tmp_path: Path) -> None:
    many = {name: {"scale": 1.0} for name in ("ties", "pcb", "iso_c", "iso_cts")}
    for folder, seed, methods in [
        ("a", 0, {"dare": {"seed": 0}}),
        ("b", 1, {"dare": {"seed": 1}}),
        ("c", 0, {"dare": {"seed": 0}, **many}),
        ("d", 0, {"dare": {"seed": 0}, "ties": {"scale": 2.0}}),
    ]:
        write_json(tmp_path / folder / "results.json", results(seed, 0.5))
        config = {"seed": seed, "method": methods, "zoo": {"seed": 0}}
        write_records(tmp_path / folder, config)
    assert [(len(group.results), group.setting) for group in runs_by_setting(tmp_path)] == [
        # The baselines were run once, the other method with two seeds.
        (3, ("method.ties.scale=1.0", "method=5 methods")),
        (1, ("method.ties.scale=2.0", "method=dare, ties")),
    ]


def test_runs_are_grouped_by_all_but_their_seed(tmp_path: Path) -> None:
    for seed, granularity in [(1, "layer_wise"), (0, "layer_wise"), (0, "task_wise")]:
        folder = tmp_path / f"{granularity}-{seed}"
        config = {"granularity": granularity, "seed": seed, "trainer": {"seed": seed, "steps": 3}}
        write_json(folder / "results.json", results(seed, 0.5, granularity))
        write_records(folder, config)
    write_json(tmp_path / "unfinished" / "results.json", results(0, 0.1))
    groups = runs_by_setting(tmp_path)
    assert [[run.seed for run in group.results] for group in groups] == [[0, 1], [0]]
    assert [group.setting for group in groups] == [
        ("granularity=layer_wise",),
        ("granularity=task_wise",),
    ]
    title = accuracy_content(groups[1].results, groups[1].setting).title
    assert "granularity=task_wise · seed 0" in title
    # On another suite everything differs: that tells nothing about either setting.
    other = {"granularity": "row", "seed": 0, "trainer": {"seed": 0}, "suite": {"name": "other"}}
    write_json(tmp_path / "other" / "results.json", results(0, 0.5))
    write_records(tmp_path / "other", other)
    assert runs_by_setting(tmp_path / "other")[0].setting == ()
    assert "granularity=row" not in str(runs_by_setting(tmp_path))
    with pytest.raises(UserError, match="holds no finished run"):
        runs_by_setting(tmp_path / "unfinished")


@pytest.mark.parametrize("part", ["learning", "corruption"])
def test_other_seeds_than_the_run_s_are_settings(tmp_path: Path, part: str) -> None:
    """Fixed beside the run's seeds they tell nothing apart, varied beside a fixed one they do."""
    fixed, varied = tmp_path / "fixed", tmp_path / "varied"
    for seed in range(3):
        for folder, run, own in ((fixed, seed, 0), (varied, 0, seed)):
            write_json(folder / str(seed) / "results.json", results(run, 0.5 + seed / 10))
            config = {"seed": run, part: {"seed": own}, "trainer": {"seed": run}}
            write_records(folder / str(seed), config)
    (group,) = runs_by_setting(fixed)
    assert len(group.results) == 3
    assert group.setting == ()
    assert [group.setting for group in runs_by_setting(varied)] == [
        (f"{part}.seed={seed}",) for seed in range(3)
    ]
    assert overruled_runs(runs_by_setting(tmp_path)) == []


def test_runs_that_repeat_a_seed_with_other_numbers_are_found(tmp_path: Path) -> None:
    for name, average in [("a", 0.5), ("b", 0.5), ("c", 0.6)]:
        write_json(tmp_path / name / "results.json", results(0, average))
        write_records(tmp_path / name, {"seed": 0})
    assert overruled_runs(runs_by_setting(tmp_path)) == [tmp_path / "c"]


def test_what_a_run_computes_on_tells_no_settings_apart(tmp_path: Path) -> None:
    machines: list[dict[str, Any]] = [
        {},
        {"threads": None, "accelerator": "cpu"},
        {"threads": 1, "accelerator": "gpu", "merge": {"memory_map": True}, "joint": True},
    ]
    for seed, machine in enumerate(machines):
        folder = tmp_path / f"seed-{seed}"
        write_json(folder / "results.json", results(seed, 0.5))
        write_records(folder, {"seed": seed, **machine})
    (group,) = runs_by_setting(tmp_path)
    assert len(group.results) == 3
    assert group.setting == ()


def test_a_key_that_only_some_runs_have_tells_them_apart(tmp_path: Path) -> None:
    configs: dict[str, dict[str, Any]] = {
        "old": {"seed": 0},
        "new": {"seed": 0, "trainer": {"steps": 3}},
    }
    for name, config in configs.items():
        write_json(tmp_path / name / "results.json", results(0, 0.5))
        write_records(tmp_path / name, config)
    assert [group.setting for group in runs_by_setting(tmp_path)] == [(), ("trainer.steps=3",)]


def test_settings_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name, images in [("a", 16), ("b", 4), ("c", None), ("d", 128)]:
        write_json(tmp_path / name / "results.json", results(0, 0.5))
        config = {"seed": 0, "learning": {"images": images}}
        write_records(tmp_path / name, config)
    found = [group.differences["learning.images"] for group in runs_by_setting(tmp_path)]
    assert found == [4, 16, 128, None]
