"""The page of all sweeps: what it lists, whom it names first, and where it links to."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from statsmerging.app.config import Config, JobSettings
from statsmerging.app.run import Run
from statsmerging.errors import UserError
from statsmerging.jobs.report import report
from statsmerging.runs.directory import RunDirectory, report_name
from statsmerging.store.files import write_json, write_text
from tests.report.conftest import HOSTILE, results, write_records
from tests.report.test_page import Page


def finished(folder: Path, time: float, **averages: float) -> None:
    whole = {"suite": {"name": "toy"}, "seed": 0, "method": {name: {} for name in averages}}
    write_records(folder, whole)
    content = results(0, {"individual": 0.9, **averages})
    write_json(folder / "results.json", content)
    os.utime(folder / "manifest.json", (time, time))


def run(directory: Path, **job: Any) -> None:
    settings = JobSettings(name="report", **job)
    record = {"job": {"name": "report", "runs": str(settings.runs)}, "suite": {}, "zoo": {}}
    made = RunDirectory(directory, record)
    with made.exclusive():
        report(Run(cast("Config", SimpleNamespace(job=settings)), made))


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    finished(folder / "older" / "a", 1.0e9, ties=0.5, free=0.6, dare=0.4, pcb=0.3)
    finished(folder / "newer" / "a", 1.1e9, ties=0.7, free=0.6)
    finished(folder / "newer" / "b", 1.2e9, ties=0.7, free=0.6)
    return folder


def index(outputs: Path) -> str:
    run(outputs / "report", index=outputs)
    return (outputs / "report" / "index.html").read_text()


def test_sweeps_stand_newest_first_with_their_best_rows(outputs: Path) -> None:
    text = index(outputs)
    assert text.index(">newer<") < text.index(">older<")
    older = text[text.index(">older<") :]
    assert older.index("The free") < older.index("The ties") < older.index("The dare")
    assert "The pcb" not in older
    assert "60.0" in older
    assert "2 folders with 3 finished runs" in text


def test_a_sweep_links_to_its_report_or_tells_the_command(outputs: Path) -> None:
    run(outputs / "report" / "newer", runs=outputs / "newer")
    text = index(outputs)
    links = [attributes.get("href") for tag, attributes in Page(text).tags if tag == "a"]
    assert links == ["#main", "newer/report.html"]
    assert (outputs / "report" / "newer/report.html").is_file()
    assert f"job=report job.runs={outputs / 'older'}</code>" in text
    assert f"job.runs={outputs / 'newer'}</code>" not in text


def test_a_report_that_runs_outlived_is_to_be_made_anew(outputs: Path) -> None:
    run(outputs / "report" / "newer", runs=outputs / "newer")
    finished(outputs / "newer" / "c", 9.9e9, ties=0.7, free=0.6)
    text = index(outputs)
    assert "newer/report.html" in text
    assert "Runs ended after the report was written" in text


def test_names_stay_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    finished(tmp_path / HOSTILE.replace("/", "-") / "a", 1e9, **{HOSTILE: 0.5})
    text = index(tmp_path)
    tags = Page(text).tags
    assert not [tag for tag, _ in tags if tag in ("b", "img", "link", "iframe")]
    assert "&lt;b&gt;bold&lt;!--" in text


def test_a_damaged_run_is_left_out(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_text(outputs / "older" / "a" / "results.json", "{")
    assert ">older<" not in index(outputs)
    assert "left out" in caplog.text


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"job\.index=.*no: no such folder"):
        run(tmp_path / "report", index=tmp_path / "no")


def test_a_report_is_named_after_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["outputs/table1/embedded", "outputs", "outputs/a b<c>"]
    assert [report_name(Path(name)) for name in names] == ["table1-embedded", "outputs", "a_b_c_"]
    elsewhere = {report_name(Path(name)) for name in ("x/runs", "y/runs", "theirs.zip")}
    assert len(elsewhere) == 3
    assert all(name.startswith(("runs-", "theirs-")) for name in elsewhere)
