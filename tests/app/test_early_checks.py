"""Mistakes in methods and tasks are answered without torch, from what the files declare."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from statsmerging.app.config import check_early, parse_config
from statsmerging.app.declarations import declarations, own_files
from statsmerging.errors import UserError
from statsmerging.merging.methods import methods
from statsmerging.scoring import regmean_plus_plus
from tests.app.test_configs import composed

MEDIAN = """
from statsmerging.merging.methods import DataFreeMethod, Grid, parameter

class Median(DataFreeMethod):
    name = "median"
    tunable = Grid("scale", (0.5, 1.0))
    scale: float = parameter(1.0, at_least=0)
"""


def test_what_the_files_declare_is_what_the_classes_say() -> None:
    assert regmean_plus_plus.RegMeanPlusPlus.name in methods()
    ours = {
        name: kind
        for name, kind in methods().items()
        if kind.__module__.startswith("statsmerging.")
    }
    declared = declarations(own_files())
    assert declared.keys() == ours.keys()
    for name, kind in ours.items():
        hints = get_type_hints(kind)
        assert declared[name].parameters == {
            item.name: (hints[item.name], dict(item.metadata)) for item in fields(kind)
        }
        assert declared[name].tunable == (kind.tunable.parameter if kind.tunable else None)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=[]"], "method: choose at least one, e.g. method=stats_merging"),
        (["+method.nonsense={}"], "method=nonsense: choose one of breadcrumbs, consensus, "),
        (["method=ties", "method.ties.tune=3"], "method.ties.tune=3: give a list of numbers"),
        (["method=ties", "method.ties.tune=[a]"], "method.ties.tune=['a']: give a list of numb"),
        (["method=ties", "method.ties.tune=[1,-1]"], "method.ties.tune=-1: scale must be at lea"),
        (["method=free", "method.free.tune=3"], "method.free.tune=3: input should be a valid li"),
        (["method=wemoe", "method.wemoe.steps=1.5"], "method.wemoe.steps=1.5: must be a whole n"),
        (
            ["plugins=[{tmp}/median.py]", "+method.median.scale=-1"],
            "method.median.scale=-1: must be at ",
        ),
        (
            ["plugins=[{tmp}/median.py]", "+method.median.size=1"],
            "method.median.size: unknown parameter",
        ),
        (
            ["suite=folder", "suite.root={tmp}/empty"],
            "suite.root={tmp}/empty holds no task: expected",
        ),
        (["suite=vision8", "suite.tasks=[cars,cats]"], "suite.tasks: the catalogue has no task "),
        (["suite.tasks=[digits,cats]"], "suite.tasks: the embedded suite has no task cats; it h"),
    ],
)
def test_mistakes(overrides: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "median.py").write_text(MEDIAN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as refused:
        check_early(composed(*(text.replace("{tmp}", str(tmp_path)) for text in overrides)))
    assert str(refused.value).startswith(expected.replace("{tmp}", str(tmp_path)))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("method", {"../elsewhere": {}}),
        ("method", {"/tmp/elsewhere": {}}),
        ("method", {".hidden": {}}),
        ("method", {"two\nlines": {}}),
        ("suite.tasks", ["../elsewhere"]),
        ("suite.unseen", ["/tmp/elsewhere"]),
        ("suite.tasks", [".."]),
    ],
)
def test_names_that_would_become_other_paths(key: str, expected: object) -> None:
    values = composed().model_dump(mode="json")
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    section[last] = expected
    with pytest.raises(UserError, match=rf"^{key}.*: no (plain )?name") as refused:
        parse_config(values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("task", ["digits[1]", "train station", "Straße", "a|b"])
def test_tasks_are_named_as_folders_may_be(task: str) -> None:
    values = composed().model_dump(mode="json")
    values["suite"]["tasks"] = [task]
    assert parse_config(values).suite.tasks == [task]


def test_what_a_plugin_computes_is_left_to_its_import(tmp_path: Path) -> None:
    plugin = tmp_path / "computed.py"
    plugin.write_text(MEDIAN.replace("at_least=0", "at_least=min(0, 1)"))
    assert declarations([plugin]) == {}
    check_early(composed(f"plugins=[{plugin}]", "+method.median.scale=-1"))
