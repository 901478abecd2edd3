"""A method's file beside all others: one command, as docs/check_a_method.md shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.app.test_command_line import command

METHOD = """
from dataclasses import dataclass
from statsmerging.merging.methods import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows

@dataclass(frozen=True)
class {title}(DataFreeMethod):
    name = "{name}"
    title = "{title}"
    tunable = {grid}
    scale: float = parameter(1.0, at_least=0)

    def merge(self, bank):
        rows = stored_rows(bank)
        return add_to_pretrained(bank, lambda layer: self.scale * rows(layer).{reduce})
"""


def plugin(folder: Path, name: str, reduce: str, grid: str = "None") -> str:
    file = folder / f"{name}.py"
    file.write_text(METHOD.format(title=name.title(), name=name, reduce=reduce, grid=grid))
    return f"plugins=[{file}]"


@pytest.fixture
def check(small_run: list[str], tmp_path: Path) -> Any:
    """Run the experiment on two zoos: overrides in, the finished process out."""
    shorter = ["zoo.seed=0,1", f"hydra.sweep.dir={tmp_path}/runs", "logger=none"]

    def run(*overrides: str) -> Any:
        return command("experiment=check_a_method", *overrides, *shorter, *small_run)

    return run


def test_one_command_gives_its_row_beside_all_others(check: Any, tmp_path: Path) -> None:
    median = plugin(tmp_path, "median", "median(0).values", 'Grid("scale", (0.5, 1.0))')
    done = check(median, "method=[simple_average,free]")
    assert done.returncode == 0, done.stderr
    assert "Median, tuned beside others" in done.stdout
    folder = tmp_path / "runs" / "comparisons" / "median"
    latex = (folder / "comparison.tex").read_text()
    for heading in ("lead", "agreement", "oracle", "forward passes", "parameters", "total, s"):
        assert heading in latex
    frame = pd.read_csv(folder / "comparison.csv")
    rows = frame[(frame["against"] == "median") & frame["task"].isna()].set_index("method")
    assert set(rows.index) == {"simple_average", "free", "median_tuned"}
    assert (rows["low"] <= rows["difference"]).all()
    assert (rows["difference"] <= rows["high"]).all()
    assert set(rows["zoos"]) == {2}

    # A second method takes its own time alone: what is in the folder joins its table.
    other = plugin(tmp_path, "mean", "mean(0)")
    again = check(other, "method=[]")
    assert again.returncode == 0, again.stderr
    table = (tmp_path / "runs" / "comparisons" / "mean" / "comparison.md").read_text()
    beside = table[table.index("Mean beside others") :]
    for title in ("Mean |", "Median, tuned", "Simple average", "Control: free coefficients"):
        assert title in beside


def test_rows_of_two_versions_of_a_method_share_no_table(check: Any, tmp_path: Path) -> None:
    median = plugin(tmp_path, "median", "median(0).values")
    assert check(median, "method=[simple_average]").returncode == 0
    plugin(tmp_path, "median", "median(0).values * 0.5")  # another version of the file
    done = check(median, "method=[]")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.search(r"error: median\.py was changed since it gave 2 run\(s\) there", line)
    # The same command with rerun=true makes them anew.
    again = check(median, "method=[simple_average]", "rerun=true")
    assert again.returncode == 0, again.stderr
    assert "Median beside others" in again.stdout


def test_no_table_where_a_job_failed(check: Any, tmp_path: Path) -> None:
    mean = plugin(tmp_path, "mean", "mean(0)")
    done = check(mean, "method=[simple_average]", "learning.held_out=0.9")
    assert done.returncode == 1
    assert "no comparison: some jobs are not done" in done.stderr
    assert not (tmp_path / "runs" / "comparisons").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "a class with `name` and `title`"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named"),
        (METHOD.format(title="Broken", name="broken", grid="None", reduce="sum(0) / 0"), "finite"),
        (
            METHOD.format(title="Grid", name="grid", grid="Grid('scal', (1,))", reduce="sum(0)"),
            "have a grid of a parameter (scale), not of scal",
        ),
        (
            METHOD.format(title="Space", name="a space", grid="None", reduce="sum(0)"),
            "method 'a space': a name has letters, digits and _ . + - alone",
        ),
    ],
    ids=["none", "import", "infinite", "grid", "name"],
)
def test_a_faulty_file_is_refused_before_anything_runs(
    check: Any, tmp_path: Path, code: str | None, message: str
) -> None:
    (tmp_path / "faulty.py").write_text(code or "")
    done = check(f"plugins=[{tmp_path / 'faulty.py'}]" if code else "plugins=[]")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: plugins: ")
    assert message in line
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*-*/"))
