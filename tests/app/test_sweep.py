"""Sweeps: no job takes another with it, and the end says what became of each."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest

from statsmerging.runs.directory import RunDirectory
from statsmerging.store.files import read_json
from tests.app.test_command_line import command
from tests.conftest import ROOT


@pytest.fixture
def sweep(small_run: list[str], tmp_path: Path) -> Any:
    """Run a sweep into ``tmp_path``: overrides in, the finished process out."""

    def run(*overrides: str) -> Any:
        return command("-m", *overrides, f"hydra.sweep.dir={tmp_path}/runs", *small_run)

    return run


def entries(folder: Path) -> list[dict[str, Any]]:
    """The journal of the latest sweep."""
    journal = sorted((folder / "runs" / "sweeps").iterdir())[-1]
    return [read_json(path) for path in sorted(journal.glob("0*.json"))]


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_failing_job_leaves_the_others_and_is_named(
    sweep: Any, tmp_path: Path, launcher: str
) -> None:
    options = [f"hydra/launcher={launcher}", "threads=1"]
    done = sweep("statistics.rank=0,2", "granularity=layer_wise,task_wise", *options)
    assert done.returncode == 1
    assert "2 of 4 jobs done" in done.stdout
    failures = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert failures == [
        f"error: job {number} (statistics.rank=0 granularity={granularity}) failed: "
        "statistics.rank=0: input should be greater than 0"
        for number, granularity in enumerate(("layer_wise", "task_wise"))
    ]
    assert "Error executing job" not in done.stderr
    assert "UserWarning" not in done.stderr
    states = [entry["state"] for entry in entries(tmp_path)]
    assert states == ["failed", "failed", "done", "done"]
    finished = [Path(entry["directory"]) for entry in entries(tmp_path)[2:]]
    assert all((path / "results.json").exists() for path in finished)

    before = [(path / "results.json").stat().st_mtime_ns for path in finished]
    again = sweep("statistics.rank=2", "granularity=layer_wise,task_wise", *options)
    assert again.returncode == 0
    assert again.stderr.count("this run is complete already") == 2
    assert [(path / "results.json").stat().st_mtime_ns for path in finished] == before


def test_an_unexpected_error_leaves_its_traceback(sweep: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from statsmerging.scoring.scores import Scorer\nScorer.score = None\n"
    )
    done = sweep(f"plugins=[],[{tmp_path}/broken.py]")
    assert done.returncode == 1
    good, bad = entries(tmp_path)
    assert (good["state"], bad["state"]) == ("done", "failed")
    assert "not callable" in bad["message"]
    assert "Traceback" in (Path(bad["directory"]) / "error.txt").read_text()
    assert f"{bad['directory']}/error.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("table5_labels,learning_images", "table5_labels, learning_images"),
        ("[mini_eight,table2_granularity],mini_eight", "[mini_eight,table2_granularity]"),
    ],
)
def test_no_experiment_loses_its_own_sweep(values: str, named: str, tmp_path: Path) -> None:
    done = command("-m", f"experiment={values}", f"hydra.sweep.dir={tmp_path}/runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: experiment={values}: {named} sweep over values of their own; give each a command, "
        "experiment=NAME without -m\n"
    )
    assert not (tmp_path / "runs").exists()


def test_optuna_keeps_its_trials_in_a_database(sweep: Any, tmp_path: Path) -> None:
    import optuna

    storage = f"sqlite:///{tmp_path}/trials.db"
    for _ in range(2):
        done = sweep(
            "hydra/sweeper=teacher_agreement",
            "hydra.sweeper.n_trials=2",
            f"hydra.sweeper.storage={storage}",
            "trainer.learning_rate=tag(log,interval(1e-4,1e-1))",
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.load_study(study_name="statsmerging", storage=storage)
    assert len(study.trials) == 4


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_drives_the_sweep(
    small_run: list[str], tmp_path: Path, end: signal.Signals
) -> None:
    options = [
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "seed=0,1",
        "trainer.steps=200000",
    ]
    driver = subprocess.Popen(
        [sys.executable, "run.py", "-m", *small_run, *options, f"hydra.sweep.dir={tmp_path}/runs"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list((tmp_path / "runs").glob("sweeps/*/0*.json"))) < 2:
        assert driver.poll() is None
        time.sleep(0.2)
    workers = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(end)
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=120)
    assert len(workers) >= 2
    assert not alive


def test_optuna_maximises_teacher_agreement(sweep: Any, tmp_path: Path) -> None:
    done = sweep(
        "hydra/sweeper=teacher_agreement",
        "hydra.sweeper.n_trials=3",
        "trainer.learning_rate=tag(log,interval(1e-4,1e-1))",
    )
    assert done.returncode == 0, done.stderr
    agreements = [
        read_json(Path(entry["directory"]) / "results.json")["methods"]["stats_merging"][
            "teacher_agreement"
        ]
        for entry in entries(tmp_path)
    ]
    best = (tmp_path / "runs" / "optimization_results.yaml").read_text()
    assert len(agreements) == 3
    assert f"best_value: {max(agreements)}" in best


def test_two_processes_never_work_on_the_same_run(tmp_path: Path) -> None:
    first, second = (RunDirectory(tmp_path / "run", {"seed": 0}) for _ in range(2))
    order = []

    def wait() -> None:
        with second.exclusive():
            order.append("second")

    with first.exclusive():
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(timeout=0.5)
        order.append("first")
    waiting.join(timeout=30)
    assert order == ["first", "second"]


def test_an_error_crosses_processes_whole() -> None:
    import pickle

    from statsmerging.errors import MissingFilesError

    error = MissingFilesError(["a (1 GB)", "b"])
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.files) == (str(error), error.files)


def test_records_of_a_sweep_hold_no_password(tmp_path: Path) -> None:
    uri = '"postgresql://me:wordofpass@127.0.0.1:9/runs"'
    done = command(
        "-m",
        "seed=0,1",
        "suite.tasks=[nowhere]",
        "logger=mlflow",
        f"logger.mlflow.tracking_uri={uri}",
        f"hydra.sweep.dir={tmp_path}/runs",
    )
    assert done.returncode == 1
    assert "postgresql://***@" in (tmp_path / "runs" / "multirun.yaml").read_text()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"wordofpass" not in file.read_bytes(), file
