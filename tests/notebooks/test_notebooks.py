"""The notebooks run from top to bottom and show what they promise."""

from __future__ import annotations

import ast
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT


def executed(name: str) -> list[Any]:
    """The notebook's cells with their outputs."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
    return list(notebook.cells)


def test_merge_your_own_models() -> None:
    """It ends in a merged model that is worth having."""
    last = executed("merge_your_own_models.ipynb")[-1].outputs[-1]["data"]["text/plain"]
    results = ast.literal_eval(last)
    averages = {method: sum(row.values()) / len(row) for method, row in results.items()}
    assert averages["StatsMerging"] > averages["task arithmetic"]
    assert averages["StatsMerging"] > averages["pre-trained"]
    assert averages["individual"] > 0.9


def test_explore_a_sweep() -> None:
    """It makes a sweep of two granularities and two seeds, and tells its first and last run apart."""
    cells = executed("explore_a_sweep.ipynb")
    shown = [output["data"] for cell in cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) == 3
    tables = [data["text/markdown"] for data in shown if "text/markdown" in data]
    assert "| layer_wise | StatsMerging |" in tables[0]
    assert "seed 0, 1" in tables[1]
    configs, difference = (cell.outputs[-1]["data"]["text/plain"] for cell in cells[-2:])
    changed = {line.split()[0] for line in configs.splitlines()[1:]}
    seeds = {"seed", "learning.seed", "trainer.seed"}
    assert changed == {"granularity", "method.stats_merging.granularity", *seeds}
    rows = {line.split()[0]: line.split()[1:] for line in difference.splitlines()[1:]}
    assert rows["individual"] == ["0.0", "0.0"]
    assert rows["stats_merging"] != ["0.0", "0.0"]
