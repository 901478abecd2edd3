"""Runs that repeat a setting with other experts: one setting, and no zoo weighs more than another.

Zoo 0 of ``zoo_runs`` has two seeds, zoo 1 has one: a mean over all runs would be another number
than the mean of the zoos.
"""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statsmerging.report import series
from statsmerging.report.drawings import drawings
from statsmerging.report.files import markdown_page
from statsmerging.report.groups import overruled_runs, runs_by_setting
from statsmerging.report.page.content import page_content
from statsmerging.report.repetitions import Repetition, spread
from statsmerging.report.tables.accuracy import FEWER_ZOOS, group_content
from statsmerging.report.tables.by_setting import sweep_tables
from statsmerging.report.tables.content import BEST, Table
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.movement import movement_tables
from statsmerging.report.tables.text import markdown, tidy
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import WriteRun

OVER_TWO = (
    "± sample standard deviation over 2 zoos (sets of experts of different seeds), each the mean "
    "of 1 to 2 seeds of the merging step"
)


def made_by(seed: int | None, **config: Any) -> dict[str, Any]:
    """Config of a run with experts of a seed."""
    zoo = {"kind": "finetuned", "seed": seed, "finetuning": {"seed": seed}}
    return {"zoo": zoo, "trainer": {"rate": 1}, **config}


@pytest.fixture
def zoo_runs(write_run: WriteRun) -> Path:
    """Two seeds with zoo 0, one with zoo 1; the bound differs by zoo, ``free`` by both."""
    for zoo, seed, free in ((0, 0, 0.60), (0, 1, 0.64), (1, 0, 0.70)):
        averages = {"individual": 0.9 - 0.1 * zoo, "ties": 0.5 + 0.02 * zoo, "free": free}
        runs = write_run(f"{zoo}-{seed}", averages, seed, **made_by(zoo))
    return runs


def only_table(runs: Path) -> Table:
    (group,) = runs_by_setting(runs)
    return group_content(group)


def averages(table: Table) -> dict[str, str]:
    """Title of each row → its average."""
    column = table.columns.index("average")
    return {row.labels[0]: number.text for row in table.rows if (number := row.numbers[column])}


def best(table: Table) -> set[str]:
    """Titles of the rows with the best average."""
    column = table.columns.index("average")
    cells = {row.labels[0]: row.numbers[column] for row in table.rows}
    return {title for title, number in cells.items() if number and number.place == BEST}


def test_every_zoo_has_the_same_weight() -> None:
    of_zoos = {Repetition("0", seed): float(seed) for seed in (1, 2, 3)}
    assert spread(of_zoos) == (2, 1, (3,))
    mixed = spread({**of_zoos, Repetition("1", 1): 8.0})
    assert mixed.mean == 5
    assert mixed.std == pytest.approx(sqrt(18))  # of 2 and 8
    assert (mixed.seeds, mixed.over) == ((3, 1), "2 zoos")
    assert spread({Repetition("0", 1): 8.0}) == (8, None, (1,))


def test_a_table_is_over_zoos_and_says_so(zoo_runs: Path) -> None:
    table = only_table(zoo_runs)
    assert table.title == "toy · vit · zoo 0, 1 · seed 0, 1"
    # Zoo 0 has 62 on average and zoo 1 has 70; bounds and deterministic methods differ by zoo too.
    assert averages(table) == {
        "Individual": "85.0 ± 7.1",
        "The ties": "51.0 ± 1.4",
        "The free": "66.0 ± 5.7",
    }
    assert OVER_TWO in table.caption
    assert "a row without ±" not in table.caption
    assert OVER_TWO.replace("±", r"$\pm$") in latex(table, "t")
    assert OVER_TWO in markdown(table)


def test_a_csv_says_what_a_deviation_is_over(zoo_runs: Path, write_run: WriteRun) -> None:
    frame = tidy([only_table(zoo_runs)]).set_index("method")
    row = frame[frame["column"] == "average"].loc["free"]
    assert (row["std_over"], row["zoos"], row["n"]) == ("zoos", 2, 3)
    frame = tidy([only_table(zoo_runs / "1-0")]).set_index("method")
    assert frame["std_over"].isna().all()
    assert set(frame["zoos"]) == set(frame["n"]) == {1}
    write_run("1-0/other seed", {"individual": 0.8, "free": 0.72}, 1, **made_by(1))
    frame = tidy([only_table(zoo_runs / "1-0")]).set_index("method")
    row = frame[frame["column"] == "average"].loc["free"]
    assert (row["std_over"], row["zoos"], row["n"]) == ("seeds", 1, 2)


def test_one_zoo_among_others_is_named_but_its_deviation_is_over_seeds(
    zoo_runs: Path, write_run: WriteRun
) -> None:
    """A setting that has a single zoo, in a folder with several."""
    for seed in (0, 1):
        averages_of = {"individual": 0.8, "ties": 0.52, "free": 0.6 + seed / 50}
        write_run(f"slow-{seed}", averages_of, seed, **made_by(1, trainer={"rate": 2}))
    _, slow = runs_by_setting(zoo_runs)
    table = group_content(slow)
    assert table.title == "toy · vit · trainer.rate=2 · zoo 1 · seed 0, 1"
    assert averages(table)["The free"] == "61.0 ± 1.4"
    assert "± sample standard deviation over 2 seeds of the merging step" in table.caption

    (sweep,) = sweep_tables(runs_by_setting(zoo_runs))
    assert sweep.labels == ("trainer.rate", "method", "zoos", "seeds")
    assert [row.labels for row in sweep.rows if "ties" not in row.labels[1]] == [
        ("", "Individual", "2", "1 to 2"),
        ("1", "The free", "2", "1 to 2"),
        ("2", "The free", "1", "2"),
    ]
    assert f"{OVER_TWO}, in rows of one zoo over 2 seeds of the merging step" in sweep.caption
    # Averages over other experts are no rivals.
    places = {row.labels[:2]: row.numbers[0].place for row in sweep.rows if row.numbers[0]}
    assert places["1", "The free"] == places["2", "The free"] == BEST


def test_the_same_seed_with_another_zoo_is_no_repetition(
    zoo_runs: Path, write_run: WriteRun
) -> None:
    assert overruled_runs(runs_by_setting(zoo_runs)) == []
    write_run("again", {"individual": 0.8, "free": 0.1}, 0, **made_by(1))
    assert overruled_runs(runs_by_setting(zoo_runs)) == [zoo_runs / "again"]
    assert averages(only_table(zoo_runs))["The free"] == "66.0 ± 5.7"


def test_a_method_with_fewer_zoos_says_so_and_is_not_ranked(
    zoo_runs: Path, write_run: WriteRun
) -> None:
    table = only_table(zoo_runs)
    assert FEWER_ZOOS not in table.caption
    for seed in (0, 1):
        lone = {"individual": 0.8, "lone": 0.75 + seed / 50}
        write_run(f"lone-{seed}", lone, seed, **made_by(1))
    table = only_table(zoo_runs)
    assert averages(table)["The lone (1 of 2 zoos)"] == "76.0 ± 1.4"
    assert best(table) == {"The free (1 to 2 of 2 seeds)"}
    assert FEWER_ZOOS in table.caption
    assert "in rows of one zoo over 2 seeds of the merging step" in table.caption


def test_a_method_without_randomness_needs_one_seed_in_each_zoo(
    zoo_runs: Path, write_run: WriteRun
) -> None:
    for zoo in (0, 1):
        averages_of = {"individual": 0.9 - 0.1 * zoo, "pcb": 0.3 + zoo / 10}
        write_run(f"pcb-{zoo}", averages_of, 0, **made_by(zoo))
    assert averages(only_table(zoo_runs))["The pcb"] == "35.0 ± 7.1"


def test_a_method_that_lacks_seeds_in_a_zoo_says_so(zoo_runs: Path, write_run: WriteRun) -> None:
    write_run("whole", {"individual": 0.8, "ties": 0.52}, 1, **made_by(1))
    assert "The free (1 to 2 of 2 seeds)" in averages(only_table(zoo_runs))


def test_experts_whose_seed_is_that_of_the_run_are_zoos(write_run: WriteRun) -> None:
    for seed in (0, 1):
        runs = write_run(str(seed), {"individual": 0.9, "free": 0.6}, seed, **made_by(seed))
    table = only_table(runs)
    assert table.title == "toy · vit · zoo 0, 1 · seed 0, 1"
    path = runs / "1" / "results.json"
    other = read_json(path)
    other["methods"]["free"]["average"] = 0.8
    write_json(path, other)
    assert (
        "over 2 zoos (sets of experts of different seeds), each one seed of the merging step"
        in (only_table(runs).caption)
    )


def test_experts_without_a_seed_are_one_zoo(write_run: WriteRun) -> None:
    for seed in (0, 1):
        averages_of = {"individual": 0.9, "free": 0.6 + seed / 50}
        runs = write_run(str(seed), averages_of, seed, **made_by(None))
    table = only_table(runs)
    assert table.title == "toy · vit · seed 0, 1"
    assert averages(table) == {"Individual": "90.0", "The free": "61.0 ± 1.4"}
    assert (
        "± sample standard deviation over 2 seeds of the merging step; a row without ± ran with "
        "one seed or draws nothing at random" in table.caption
    )


def test_seeds_of_heterogeneous_experts_make_zoos(write_run: WriteRun) -> None:
    """Teachers and their distillation share a seed, which names the zoo once."""
    for seed in (0, 1, 10):
        experts = {"distillation": {"seed": seed}, "teachers": {"seed": seed}}
        averages_of = {"individual": 0.9, "free": 0.6}
        runs = write_run(str(seed), averages_of, 0, **made_by(0, heterogeneous=experts))
        about = {"architecture": "resnet18", "teacher": 0.9, "student": 0.8, "images": 200}
        path = runs / str(seed) / "results.json"
        write_json(path, read_json(path) | {"distilled": {"mnist": about}})
    (group,) = runs_by_setting(runs)
    assert group_content(group).title == "toy · vit · zoo 0, 1, 10 · seed 0"
    assert "| toy · vit · zoo 10 | mnist | resnet18 |" in markdown_page({}, [group], {})


def test_zoos_that_differ_in_two_seeds_are_named_by_both(write_run: WriteRun) -> None:
    for merged, taught in ((0, 0), (0, 1), (1, 1)):
        config = made_by(merged, heterogeneous={"teachers": {"seed": taught}})
        runs = write_run(f"{merged}-{taught}", {"individual": 0.9, "free": 0.6}, **config)
    (group,) = runs_by_setting(runs)
    assert [run.zoo for run in group.repeated] == [
        "zoo.seed=0 heterogeneous.teachers.seed=0",
        "zoo.seed=0 heterogeneous.teachers.seed=1",
        "zoo.seed=1 heterogeneous.teachers.seed=1",
    ]


def test_coefficients_are_those_of_the_first_zoo(zoo_runs: Path) -> None:
    for name, value in (("0-0", 1.0), ("0-1", 2.0), ("1-0", 9.0)):
        rows = [("free", layer, "mnist", value) for layer in ("cls_token", "blocks.0.fc.bias")]
        columns = ["method", "layer", "task", "coefficient"]
        frame = pd.DataFrame(rows, columns=columns)
        frame.to_parquet(zoo_runs / name / "coefficients.parquet")
    shown = {drawing.kind: drawing for drawing in drawings(runs_by_setting(zoo_runs))}
    assert shown["heatmap"].title == "Coefficients · The free · toy · vit · zoo 0"
    assert set(shown["heatmap"].frame["coefficient"]) == {1.5}
    assert shown["dots"].title == "Accuracy on every task · toy · vit"
    assert set(shown["dots"].frame["zoo"]) == {"0", "1"}


def test_the_movement_of_the_weights_is_over_zoos(zoo_runs: Path) -> None:
    for name, largest in (("0-0", 1.0), ("0-1", 2.0), ("1-0", 3.5)):
        path = zoo_runs / name / "results.json"
        content = read_json(path)
        moved = {"matrices": {"largest_coefficient": largest, "relative": 0.5}}
        content["methods"]["free"]["movement"] = moved
        write_json(path, content)
    (table,) = movement_tables(runs_by_setting(zoo_runs))
    (row,) = table.rows
    assert row.numbers[0] is not None
    assert row.numbers[0].text == "2.500 ± 1.414"
    assert OVER_TWO in table.caption


def test_a_line_over_severity_is_over_zoos(write_run: WriteRun) -> None:
    """Averages that are the same with all settings are joined only within one zoo."""
    for zoo in (0, 1):
        for severity in (1, 2):
            corruption = {"kind": "contrast", "severity": severity}
            averages_of = {"individual": 0.9 - zoo / 10, "ties": 0.6 + zoo / 10}
            name = f"{zoo}-{severity}"
            runs = write_run(name, averages_of, **made_by(zoo, corruption=corruption))
    frame = series.by_severity(runs_by_setting(runs))
    ties = frame[frame["line"] == "The ties"]
    assert ties["x"].tolist() == [1, 2]
    assert ties["mean"].tolist() == pytest.approx([65, 65])
    assert ties["std"].tolist() == pytest.approx([sqrt(50)] * 2)
    assert set(ties["over"]) == {"2 zoos"}


def test_the_page_tells_the_zoos_of_its_runs_apart(zoo_runs: Path) -> None:
    content = page_content(runs_by_setting(zoo_runs), zoo_runs)
    assert content["keys"] == ["zoo.seed"]
    told = {run["name"]: (run["zoo"], run["setting"]) for run in content["runs"]}
    assert told["0-1"] == ("0", {"zoo.seed": 0})
    assert told["1-0"] == ("1", {"zoo.seed": 1})
    (setting,) = content["settings"]
    assert setting["runs"] == ["0-0", "0-1", "1-0"]
    assert OVER_TWO in setting["caption"]
    # The overview calls a number the best among those of the same experts.
    peers = {
        run["name"]: method["peers"]
        for run in content["runs"]
        for method in run["methods"]
        if method["name"] == "free"
    }
    assert peers["0-0"] == peers["0-1"] != peers["1-0"]


@pytest.mark.parametrize("seed", [[1], {"a": 1}, "one"])
def test_a_seed_that_is_none_stays_text(write_run: WriteRun, seed: object) -> None:
    write_run("a", {"individual": 0.9, "free": 0.6}, zoo={"seed": 0})
    runs = write_run("b", {"individual": 0.9, "free": 0.6}, zoo={"seed": seed})
    assert runs_by_setting(runs)
