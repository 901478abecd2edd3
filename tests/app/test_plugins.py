"""A method in one file, as docs/adding_a_method.md shows it."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from statsmerging.app.plugins import load_plugins, plugin_records
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import DataFreeMethod, method_named, methods
from statsmerging.store.files import read_json
from statsmerging.store.hashing import file_sha256
from statsmerging.zoo.network import Network
from tests.conftest import ROOT, JobRunner


def test_the_documented_method_runs(
    run_job: JobRunner, tmp_path: Path, bank: TaskVectorBank
) -> None:
    text = (ROOT / "docs" / "adding_a_method.md").read_text()
    code, check = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
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
    exec(check, {"Median": type(median)})
    merged = median.merge(bank)
    for name, start in bank.pretrained.items():
        expected = start.flatten() + bank.vectors[name].median(0).values
        torch.testing.assert_close(merged[name].flatten(), expected)


def test_a_plugin_that_cannot_be_imported(run_job: JobRunner, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import nowhere_to_be_found")
    with pytest.raises(UserError, match=r"broken\.py: ModuleNotFoundError: No module named"):
        run_job(f"plugins=[{broken}]")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods of a test are forgotten after it."""
    monkeypatch.setattr("statsmerging.merging.methods.base._REGISTRY", methods())


METHOD = """
from dataclasses import dataclass

from statsmerging.merging.methods import DataFreeMethod
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows


@dataclass(frozen=True)
class {name}(DataFreeMethod):
    name = "{name}"
    title = "{name}"
    {more}

    def merge(self, bank):
        rows = stored_rows(bank)
        return add_to_pretrained(bank, lambda layer: rows(layer).median(0).values)
"""


def write_method(file: Path, name: str, more: str = "") -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(METHOD.format(name=name, more=more))
    return file


@pytest.mark.usefixtures("registered")
def test_two_files_of_one_name_are_both_imported_and_recorded(
    run_job: JobRunner, tmp_path: Path
) -> None:
    files = [write_method(tmp_path / name / "mine.py", f"of_{name}") for name in ("a", "b")]
    plugins = f"plugins=[{files[0]},{files[1]}]"
    rows = run_job(plugins, "method=[]", "+method.of_a={}", "+method.of_b={}")["methods"]
    assert {"of_a", "of_b"} <= rows.keys()
    recorded = read_json(tmp_path / "run" / "manifest.json")["plugins"]
    assert recorded == {
        name: {"path": str(file), "sha256": file_sha256(file)}
        for name, file in zip(("mine.py", "mine.py, 2"), files, strict=True)
    }


@pytest.mark.usefixtures("registered")
def test_a_file_that_was_edited_is_imported_anew(tmp_path: Path) -> None:
    file = write_method(tmp_path / "mine.py", "edited")
    times = file.stat()
    for title in ("One", "Two"):  # of equal length, at the same time
        write_method(file, "edited", f'title = "{title}"')
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        load_plugins([file])
        assert method_named("edited").title == title
        (record,) = plugin_records([file]).values()
        assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.usefixtures("registered")
def test_what_nobody_can_give_a_method_is_refused_before_anything_runs(
    run_job: JobRunner, tmp_path: Path
) -> None:
    file = write_method(tmp_path / "odd.py", "odd", 'needs = "weights"')
    with pytest.raises(UserError, match=r"method odd: needs='weights': choose one of nothing$"):
        run_job(f"plugins=[{file}]", "+method.odd={}")
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_cache_knows_the_code_of_the_users_own_network(tmp_path: Path) -> None:
    file, keys = tmp_path / "network.py", []
    preprocess = Preprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for sign in ("", "-", ""):
        file.write_text(
            "from torch import nn\n\n\nclass Own(nn.Module):\n"
            f"    def forward(self, images):\n        return {sign}images.flatten(1)\n"
        )
        load_plugins([file])
        (name,) = (name for name in sys.modules if name.startswith("statsmerging_plugins.network"))
        module = torch.nn.Sequential(sys.modules[name].Own())
        keys.append(Network(module, preprocess, torch.device("cpu")).architecture)
    assert keys[0] == keys[2] != keys[1]
