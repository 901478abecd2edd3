"""A run that is damaged is named in one line and left out; the others are reported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statsmerging.report.groups import runs_by_setting
from statsmerging.report.runs import unfinished_runs
from statsmerging.store.files import read_json, write_json
from statsmerging.store.hashing import file_sha256
from tests.report.conftest import WriteRun, write_records

Damage = Callable[[Path], object]


def results_with(**entries: Any) -> Damage:
    return lambda run: write_json(run / "results.json", read_json(run / "results.json") | entries)


def config_with(**entries: Any) -> Damage:
    return lambda run: write_records(run, read_json(run / "manifest.json")["config"] | entries)


def text_in(name: str, text: str) -> Damage:
    return lambda run: (run / name).write_text(text)


def link_at(name: str) -> Damage:
    def damage(run: Path) -> None:
        (run / name).rename(run.parent.parent / "elsewhere")
        (run / name).symlink_to(run.parent.parent / "elsewhere")

    return damage


def pipe_at(name: str) -> Damage:
    def damage(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return damage


def table_at(name: str, **columns: Any) -> Damage:
    return lambda run: pd.DataFrame(columns).to_parquet(run / name)


def another_hash(run: Path) -> None:
    outputs = {name: file_sha256(run / name) for name in ("config.yaml", "results.json")}
    outputs["coefficients.parquet"] = "0" * 64
    write_json(run / "manifest.json", read_json(run / "manifest.json") | {"outputs": outputs})


ROW = {"accuracy": {"mnist": 0.5}, "average": 0.5, "normalised_average": 0.5}
CURVE = "learning_curves/free/version_0/metrics.csv"
DAMAGES: dict[str, tuple[str, Damage]] = {
    "cut results": ("results.json", text_in("results.json", '{"suite": ')),
    "empty manifest": ("manifest.json", text_in("manifest.json", "")),
    "a list of results": ("results.json", text_in("results.json", "[]")),
    "deep results": ("results.json", text_in("results.json", '{"a":' * 200 + "1" + "}" * 200)),
    "a text as seed": ("seed", results_with(seed="0")),
    "no methods": ("methods", results_with(methods={})),
    "a list as row": ("methods.ties", results_with(methods={"ties": []})),
    "a text as average": ("average", results_with(methods={"ties": ROW | {"average": "1"}})),
    "no average": ("average", results_with(methods={"ties": {"accuracy": {"mnist": 0.5}}})),
    "an accuracy of 2": ("mnist", results_with(methods={"ties": ROW | {"accuracy": {"mnist": 2}}})),
    "a text as warnings": ("warnings", results_with(warnings="all")),
    "an expert of no kind": ("distilled", results_with(distilled={"mnist": 1})),
    "a text as severity": ("corruption", config_with(corruption={"severity": "much"})),
    "a list as images": ("learning", config_with(learning={"images": [1]})),
    "a list of methods": ("method", config_with(method=["ties"])),
    "aliases": ("aliases", text_in("config.yaml", "a: &a [1]\nb: *a\n")),
    "a linked config": ("config.yaml is a link", link_at("config.yaml")),
    "a linked table": ("coefficients.parquet is a link", link_at("coefficients.parquet")),
    "a pipe": ("statistics.parquet is no regular file", pipe_at("statistics.parquet")),
    "a linked curve": ("metrics.csv is a link", link_at(CURVE)),
    "cut coefficients": ("coefficients.parquet", text_in("coefficients.parquet", "PAR1")),
    "other coefficients": ("coefficients.parquet", table_at("coefficients.parquet", a=[1])),
    "texts as statistics": (
        "statistics.parquet",
        table_at("statistics.parquet", layer=["a"], task=["b"], mean=["c"]),
    ),
    "a statistic of a taken name": (
        "statistics.parquet",
        table_at("statistics.parquet", layer=["a"], task=["b"], value=[1.0]),
    ),
    "a curve of texts": ("metrics.csv", text_in(CURVE, "step,loss\na,b\n")),
    "another hash": ("coefficients.parquet", another_hash),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_run_is_named_and_left_out(
    learned_run: Path, write_run: WriteRun, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write_run("whole", {"individual": 0.9, "ties": 0.5})
    expected, damage = DAMAGES[name]
    damage(learned_run / "learned")
    (group,) = runs_by_setting(learned_run)
    assert [run.path.name for run in group.members] == ["whole"]
    (line,) = caplog.messages
    assert line.startswith(f"left out: {learned_run / 'learned'}")
    assert expected in line
    assert "\n" not in line


def test_a_config_that_is_no_run_s_is_named_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, text in {"a": "job: {name: merge}", "b": "job: [", "c": "- a", "d": "job: 1"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    assert unfinished_runs(tmp_path) == ["a"]
    (line,) = caplog.messages
    assert line.startswith(f"left out: {tmp_path}/b/config.yaml")
