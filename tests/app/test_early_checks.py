"""Mistakes in methods and tasks are answered before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from statsmerging.app.command_line import check_before
from statsmerging.app.config import parse_config
from statsmerging.errors import UserError
from statsmerging.merging.methods import methods
from tests.app.test_configs import composed

MEDIAN = """
from statsmerging.merging.methods import DataFreeMethod, Grid, parameter

from dataclasses import dataclass

@dataclass(frozen=True)
class Median(DataFreeMethod):
    name = "median"
    title = "Median"
    tunable = Grid("scale", (0.5, 1.0))
    scale: float = parameter(1.0, at_least=0)

    def merge(self, bank):
        raise NotImplementedError
"""


@pytest.fixture(autouse=True)
def no_registration_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statsmerging.merging.methods.base._REGISTRY", methods())


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method=[]"], "method: choose at least one, e.g. method=stats_merging"),
        (
            ["+method.nonsense={}"],
            "method=nonsense: choose one of ace, breadcrumbs, cart, consensus, ",
        ),
        (["zoo.lora_rank=0"], "zoo.lora_rank=0: input should be greater than 0"),
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
        (
            ["granularity=singular_wise", "link=sigmoid"],
            "method.stats_merging.link=sigmoid: with granularity=singular_wise choose identity",
        ),
        (
            ["method=singular_wise", "merge.anchor=none"],
            "method.singular_wise.anchor=none: with granularity=singular_wise choose pretrained",
        ),
        (
            ["method=[simple_average,singular_wise]", "method.singular_wise.learner=released_code"],
            "method.singular_wise.learner=released_code: with granularity=singular_wise choose sha",
        ),
        (
            ["learner=free_per_layer"],
            "method.stats_merging.learner=free_per_layer: only with granularity=singular_wise; wi",
        ),
        (
            ["learner=free_per_layer", "granularity=task_wise"],
            "method.stats_merging.learner=free_per_layer: only with granularity=singular_wise; wi",
        ),
        (
            ["method=singular_wise", "method.singular_wise.vectors=some"],
            "method.singular_wise.vectors=some: input should be 'learned', 'table', 'mean', 'onl",
        ),
        (
            ["method=constant_input", "+method.constant_input.trains=heads", "learning.episodes=3"],
            "method.constant_input.trains=heads: needs episodes=null; with subsets of the experts",
        ),
        (
            ["labels=ground_truth", "+labels.unless_surer=true"],
            "labels: ground_truth needs min_confidence=0, unless_surer=false and restrict=task",
        ),
        (
            ["method=samerging", "method.samerging.labels.kind=ground_truth"],
            "method.samerging.labels: kind=ground_truth is a setting of the run, which is stamped",
        ),
        (
            ["method=samerging", "method.samerging.labels.kind=some"],
            "method.samerging.labels.kind=some: input should be 'hard', 'soft' or 'ground_truth'",
        ),
        (
            ["method=adarank", "method.adarank.granularity=layer_wise"],
            "method.adarank.learner=masks: only with granularity=singular_wise; with layer_wise",
        ),
        (
            ["method=adarank", "method.adarank.vectors=mean"],
            "method.adarank.vectors=mean: with learner=masks choose learned",
        ),
        (
            ["method=adarank", "method.adarank.spectral.rank=0"],
            "method.adarank.spectral.rank=0: input should be greater than 0",
        ),
        (["spectral.rank=0"], "spectral.rank=0: input should be greater than 0"),
        (["spectral.budget=0"], "spectral.budget=0: input should be greater than 0"),
        (["spectral.budget=nan"], "spectral.budget=nan: input should be a finite number"),
        (["spectral.budget=inf"], "spectral.budget=inf: input should be a finite number"),
        (["spectral.features=[]"], "spectral.features=[]: list should have at least 1 item"),
        (["spectral.features=[spin]"], "spectral.features.0=spin: input should be 'singular_va"),
        (
            ["spectral.features=[energy]", "spectral.leave_out=[depth]"],
            "spectral.leave_out=['depth']: depth: not in spectral.features",
        ),
        (
            ["spectral.features=[energy]", "spectral.leave_out=[energy]"],
            "spectral.leave_out=['energy']: nothing of spectral.features is left",
        ),
        (["suite=vision8", "suite.tasks=[cars,cats]"], "suite.tasks: the catalogue has no task "),
        (["suite.tasks=[digits,cats]"], "suite.tasks: the embedded suite has no task cats; it h"),
    ],
)
def test_mistakes(overrides: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "median.py").write_text(MEDIAN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as refused:
        check_before(composed(*(text.replace("{tmp}", str(tmp_path)) for text in overrides)))
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


def test_a_plugin_may_compute_what_it_declares(tmp_path: Path) -> None:
    plugin = tmp_path / "computed.py"
    plugin.write_text(MEDIAN.replace("at_least=0", "at_least=min(0, 1)"))
    with pytest.raises(UserError, match=r"^method\.median\.scale=-1: must be at least 0"):
        check_before(composed(f"plugins=[{plugin}]", "+method.median.scale=-1"))
