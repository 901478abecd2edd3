"""What a report says, and which files of an earlier one it removes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from statsmerging.app.config import Config
from statsmerging.app.run import Run
from statsmerging.jobs import report
from statsmerging.runs.directory import RunDirectory
from statsmerging.store.files import read_json, write_json, write_text
from tests.report.conftest import results, write_records


def finished(folder: Path, **config: Any) -> None:
    """One finished run."""
    averages = {"individual": 0.9, "ties": 0.5, "free": 0.6}
    whole = {"seed": 0, "method": {"ties": {}, "free": {}}} | config
    write_json(folder / "results.json", results(0, averages))
    write_records(folder, whole)


def run(runs: Path, directory: Path) -> None:
    config = SimpleNamespace(job=SimpleNamespace(runs=runs))
    report.report(Run(cast("Config", config), RunDirectory(directory, {})))


def test_unfinished_runs_are_named_and_figures_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = tmp_path / "runs"
    finished(runs / "a")
    write_text(runs / "a" / "wandb" / "files" / "config.yaml", "job:\n  name: merge\n")
    write_text(runs / "report" / "config.yaml", "job:\n  name: report\n")
    for name in ("b", "c", "d", "e"):
        write_text(runs / name / "config.yaml", "job:\n  name: merge\n")
    with caplog.at_level("INFO"):
        run(runs, tmp_path / "report")
    assert "4 unfinished run(s) left out: b, c, d and 1 more" in caplog.messages
    assert f"figures: 1 in {tmp_path}/report/figures" in caplog.messages
    assert not any("Accuracy on every task" in line for line in caplog.messages)


def test_what_an_earlier_report_drew_and_this_one_does_not_is_removed(tmp_path: Path) -> None:
    runs, figures = tmp_path / "runs", tmp_path / "report" / "figures"
    finished(runs / "a", granularity="layer_wise")
    finished(runs / "b", granularity="task_wise")
    run(runs, tmp_path / "report")
    earlier = {path.name for path in figures.iterdir()}
    write_text(figures / "mine.png", "")
    run(runs / "a", tmp_path / "report")
    now = {path.name for path in figures.iterdir()}
    assert "mine.png" in now
    assert len(now) < len(earlier)
    assert {path.name for path in figures.glob("*.pdf")} == {"accuracy_on_every_task_toy_vit.pdf"}
    tables = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert not any("task_wise" in name for name in tables)


def test_a_warning_of_several_settings_stands_once(tmp_path: Path) -> None:
    warned = {"layer_wise": ["of all", "of one"], "task_wise": ["of all"]}
    for granularity, lines in warned.items():
        folder = tmp_path / "runs" / granularity
        finished(folder, granularity=granularity)
        write_json(
            folder / "results.json", read_json(folder / "results.json") | {"warnings": lines}
        )
    run(tmp_path / "runs", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("of all") == 1
    assert "- of all\n- of one (toy · vit · granularity=layer_wise)\n" in text
