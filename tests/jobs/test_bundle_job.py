"""``job=bundle``: the same report from the bundle, and nothing of the machine in it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from statsmerging.app.config import Config, JobSettings
from statsmerging.app.run import Run
from statsmerging.errors import UserError
from statsmerging.jobs.compare import compare
from statsmerging.jobs.report import report
from statsmerging.report import frames
from statsmerging.report.groups import runs_by_setting
from statsmerging.runs.bundled import TABLES
from statsmerging.runs.directory import RunDirectory
from statsmerging.store.files import read_json, write_text
from statsmerging.store.hashing import file_sha256
from tests.conftest import JobRunner
from tests.sent_runs import PERSON, contents, finished, sent

#: What a bundle has of a run with everything.
OF_A_RUN = {
    "config.yaml",
    "manifest.json",
    "results.json",
    *TABLES,
    "learning_curves/free/version_0/metrics.csv",
}

METHODS = {"ties": 0.5, "free": 0.7}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two settings with two seeds each, in folders whose names are not plain."""
    folder = tmp_path / "my runs"
    for granularity in ("layer_wise", "task_wise"):
        for seed in (0, 1):
            place = folder / f"{granularity}, seed {seed}"
            finished(place, METHODS, seed=seed, granularity=granularity)
    return folder


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """One run with everything, and what its logger left."""
    finished(tmp_path / "runs" / "a", METHODS, learned=True)
    return tmp_path / "runs"


def outcome(job: str, runs: Path, directory: Path) -> Path:
    """Report or compare."""
    config = SimpleNamespace(job=JobSettings(name=cast("Any", job), runs=runs))
    directory.mkdir()
    work = {"report": report, "compare": compare}[job]
    work(Run(cast("Config", config), RunDirectory(directory, {})))
    return directory


def files_of(folder: Path) -> dict[str, bytes]:
    """Name → content of all files in a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_the_report_of_a_bundle_is_that_of_the_runs(runs: Path, tmp_path: Path) -> None:
    file = sent(runs, tmp_path / "theirs.zip", by="A *group*")
    own = outcome("report", runs, tmp_path / "own")
    received = outcome("report", file, tmp_path / "received")
    for part in ("tables", "figures"):
        assert files_of(own / part) == files_of(received / part)
    text = (own / "report.md").read_text().replace("/home/alice/data/mini", "…/mini")
    whose = r"- 4 run(s) from theirs.zip, by A \*group\*, statsmerging 0.1.0"
    assert (received / "report.md").read_text() == f"{whose}\n\n{text}"
    assert text.startswith(contents(file)["report.md"].decode())
    page = (received / "report.html").read_text()
    assert '"from": "theirs.zip, by A *group*, statsmerging 0.1.0"' in page
    assert '"path": "' + str(file / "layer_wise_seed_0") in page


def test_the_comparison_of_a_bundle_is_that_of_the_runs(runs: Path, tmp_path: Path) -> None:
    file = sent(runs, tmp_path / "theirs.zip")
    own = files_of(outcome("compare", runs, tmp_path / "own"))
    received = files_of(outcome("compare", file, tmp_path / "received"))
    for name in ("comparison.csv", "comparison.tex"):
        assert own[name] == received[name]
    whose = b"- 4 run(s) from theirs.zip, statsmerging 0.1.0\n\n"
    assert received["comparison.md"] == whose + own["comparison.md"]
    assert b"free" in own["comparison.csv"]


def test_all_that_is_drawn_is_the_same(learned: Path, tmp_path: Path) -> None:
    file = sent(learned, tmp_path / "theirs.zip")
    for of in (frames.coefficients, frames.statistics, frames.learning_curves):
        own = of(runs_by_setting(learned))
        assert len(own)
        pd.testing.assert_frame_equal(own, of(runs_by_setting(file)))


def test_a_bundle_has_no_weights_and_no_logs(learned: Path, tmp_path: Path) -> None:
    found = contents(sent(learned, tmp_path / "theirs.zip", by="me"))
    assert found.keys() == {"bundle.json", "report.md", *(f"a/{name}" for name in OF_A_RUN)}
    about = json.loads(found["bundle.json"])
    assert (about["format"], about["by"], about["statsmerging"]) == (1, "me", "0.1.0")
    assert about["files"].keys() == found.keys() - {"bundle.json"}


def test_a_bundle_tells_no_path_and_no_person(learned: Path, tmp_path: Path) -> None:
    finished(learned / "b", METHODS, seed=1, home=f"/scratch/{PERSON}", learned=True)
    found = contents(sent(learned, tmp_path / "theirs.zip"))
    for name, content in found.items():
        for told in (PERSON, "/home", "/scratch", "my weights", "laptop", str(tmp_path)):
            assert told.encode() not in content, (name, told)
    manifest = json.loads(found["a/manifest.json"])
    assert manifest["command"] == ["…/run.py", "-m", "suite.root=…/mini", "seed=0,1"]
    assert manifest["config"]["suite"]["root"] == "…/mini"
    assert manifest["files"]["backbone.weights"]["path"] == "…/vit.safetensors"
    assert manifest["plugins"] == {"plugin.py": {"path": "…/plugin.py", "sha256": "5" * 64}}
    assert manifest["hardware"] == {"platform": "Linux", "cpu": "a processor"}
    assert manifest["inputs"] == {}
    results = json.loads(found["a/results.json"])
    assert results["failed"] == {"ties": "cannot open '…/1.png'"}
    assert results["warnings"] == [
        "few images in …/mini, and 1/2 of them dark; see https://example.org/a/b"
    ]


def test_the_run_it_was_is_kept(learned: Path, tmp_path: Path) -> None:
    manifest = json.loads(contents(sent(learned, tmp_path / "theirs.zip"))["a/manifest.json"])
    own = read_json(learned / "a" / "manifest.json")
    assert manifest["run_hash"] != own["run_hash"]
    results = file_sha256(learned / "a" / "results.json")
    assert manifest["original"] == {"run_hash": own["run_hash"], "results": results}
    for part in ("weights", "data", "code"):
        assert manifest[part] == own[part]


def test_settings_that_differ_by_a_path_stay_two(tmp_path: Path) -> None:
    for name in ("a", "b"):
        finished(tmp_path / "runs" / name, METHODS, suite={"name": "toy", "root": f"/{name}/mini"})
    groups = runs_by_setting(sent(tmp_path / "runs", tmp_path / "theirs.zip"))
    assert [group.setting for group in groups] == [
        ("suite.root=…/mini",),
        ("suite.root=…2/mini",),
    ]


def test_the_same_runs_give_the_same_bytes(learned: Path, tmp_path: Path) -> None:
    file = sent(learned, tmp_path / "theirs.zip")
    first = file.read_bytes()
    for path in learned.rglob("*"):
        path.touch()
    assert sent(learned, tmp_path / "again.zip").read_bytes() == first
    sent(learned, file)
    finished(learned / "b", METHODS, seed=1)
    with pytest.raises(UserError, match="already holds something else; nothing was overwritten"):
        sent(learned, file)
    assert file.read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "theirs.zip", "again.zip"}


def test_unfinished_and_damaged_runs_are_named_and_left_out(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_text(runs / "begun" / "config.yaml", "job:\n  name: merge\n")
    damaged = runs / "task_wise, seed 1" / "outcomes.safetensors"
    damaged.write_bytes(b"damaged")
    found = contents(sent(runs, tmp_path / "theirs.zip"))
    assert {name.split("/")[0] for name in found if "/" in name} == {
        "layer_wise_seed_0",
        "layer_wise_seed_1",
        "task_wise_seed_0",
    }
    assert (
        f"left out: {damaged} is not what the run wrote: its sha256 is another" in caplog.messages
    )
    assert "1 unfinished run(s) left out: begun" in caplog.messages


def test_one_run_and_names_that_become_equal(tmp_path: Path) -> None:
    for name in ("a b", "a=b", ".x/_y"):
        finished(tmp_path / name, METHODS, seed=len(name))
    found = contents(sent(tmp_path, tmp_path / "all.zip"))
    assert {name.removesuffix("/config.yaml") for name in found if "config" in name} == {
        "a_b",
        "a_b-2",
        "x/y",
    }
    assert "a_b/config.yaml" in contents(sent(tmp_path / "a b", tmp_path / "one.zip"))


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"target": "x.tar"}, r"job.target=x.tar: a file to write is needed, NAME.zip"),
        ({"target": None}, r"a file to write is needed, NAME.zip"),
        ({"runs": "{zip}", "target": "x.zip"}, "job.runs: a folder with run directories is needed"),
        ({"runs": "{empty}", "target": "x.zip"}, "holds no finished run"),
    ],
)
def test_refused(runs: Path, tmp_path: Path, job: dict[str, Any], expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "b.zip").touch()
    places = {"{zip}": tmp_path / "b.zip", "{empty}": tmp_path / "empty"}
    with pytest.raises(UserError, match=expected):
        sent(places.get(job.get("runs", ""), runs), job["target"])


def test_a_real_run_and_its_bundle(run_job: JobRunner, tmp_path: Path) -> None:
    """As a user makes and reads it; data and weights lie at absolute paths."""
    runs = tmp_path / "runs"
    for seed in (0, 1):
        run_job("method=[ties,stats_merging]", f"seed={seed}", directory=runs / f"seed {seed}")
    target = tmp_path / "theirs.zip"
    bundling = ("job=bundle", f"job.runs={runs}", f"job.target={target}", "job.by='The group'")
    run_job(*bundling, directory=tmp_path / "log")
    for name, content in contents(target).items():
        assert str(tmp_path.parent).encode() not in content, name
    own, received = runs_by_setting(runs), runs_by_setting(target)
    assert [group.label for group in own] == [group.label for group in received]
    assert [group.results for group in own] == [group.results for group in received]
    pd.testing.assert_frame_equal(frames.coefficients(own), frames.coefficients(received))
    run_job("job=compare", f"job.runs={runs}", directory=tmp_path / "own")
    run_job("job=compare", f"job.runs={target}", directory=tmp_path / "received")
    for name in ("comparison.csv", "comparison.tex"):
        assert (tmp_path / "own" / name).read_text() == (tmp_path / "received" / name).read_text()
    assert "by The group" in (tmp_path / "received" / "comparison.md").read_text()
