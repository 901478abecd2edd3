"""The notebook runs from top to bottom and ends in a merged model that is worth having."""

from __future__ import annotations

import ast

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT


def test_merge_your_own_models() -> None:
    path = ROOT / "notebooks" / "merge_your_own_models.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    last = notebook.cells[-1].outputs[-1]["data"]["text/plain"]
    results = ast.literal_eval(last)
    averages = {method: sum(row.values()) / len(row) for method, row in results.items()}
    assert averages["StatsMerging"] > averages["task arithmetic"]
    assert averages["StatsMerging"] > averages["pre-trained"]
    assert averages["individual"] > 0.9
