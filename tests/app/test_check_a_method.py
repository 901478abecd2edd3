"""A method's file beside all others: one command, as docs/check_a_method.md shows it."""

from __future__ import annotations

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
    other = plugin(tmp_path, "first", "select(0, 0)")
    again = check(other, "method=[]")
    assert again.returncode == 0, again.stderr
    table = (tmp_path / "runs" / "comparisons" / "first" / "comparison.md").read_text()
    beside = table[table.index("First beside others") :]
    for title in ("First |", "Median, tuned", "Simple average", "Control: free coefficients"):
        assert title in beside


def test_without_a_method_there_is_nothing_to_check(check: Any, tmp_path: Path) -> None:
    done = check()
    assert done.returncode == 1
    assert "plugin_methods=all: no file of `plugins` has a method" in done.stderr
    assert "Traceback" not in done.stderr
