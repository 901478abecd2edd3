"""A method in one file, as docs/adding_a_method.md shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import DataFreeMethod, method_named
from statsmerging.records.errors import UserError
from tests.conftest import ROOT, JobRunner


def test_the_documented_method_runs(
    run_job: JobRunner, tmp_path: Path, bank: TaskVectorBank
) -> None:
    text = (ROOT / "docs" / "adding_a_method.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 25
    file = tmp_path / "median.py"
    file.write_text(code)
    (command,) = re.findall(r"python run.py .*", text)
    _, method = re.findall(r"'(.*?)'", command)
    rows = run_job(f"plugins=[{file}]", method)["methods"]
    assert rows["median"]["title"] == "Median"
    assert rows["median_tuned"]["parameters"]["scale"] in (0.5, 1.0, 2.0)
    assert "stats_merging" in rows

    median = method_named("median")
    assert isinstance(median, DataFreeMethod)
    merged = median.merge(bank)
    for name, start in bank.pretrained.items():
        expected = start.flatten() + bank.vectors[name].median(0).values
        torch.testing.assert_close(merged[name].flatten(), expected)


def test_a_plugin_that_cannot_be_imported(run_job: JobRunner, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nowhere_to_be_found")
    with pytest.raises(UserError, match=r"broken\.py: ModuleNotFoundError: No module named"):
        run_job(f"plugins=[{broken}]")
