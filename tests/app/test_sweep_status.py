"""``status`` and ``delete_incomplete``: one word more in a command, and nothing starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from statsmerging.app.planned_runs import planned_jobs, runs_of_sweep, sweeps_of
from statsmerging.app.sweep_status import AnswerFirst
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.journal import JOURNALS, Entry, Journal
from tests.conftest import ROOT

TWO = ("method=[simple_average],[ties]", "seed=0,1")


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Any]:
    """Compose the config of a sweep as Hydra does before it calls us: overrides in, config out."""
    before = HydraConfig.instance().cfg

    def compose(*overrides: str) -> DictConfig:
        given = [f"hydra.sweep.dir={tmp_path}/runs", f"hydra.run.dir={tmp_path}/run", *overrides]
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration("config", given, RunMode.MULTIRUN)

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield compose
    HydraConfig.instance().cfg = before


def ask(config: DictConfig, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        AnswerFirst().on_multirun_start(config)
    assert ended.value.code == status


def kill(run: RunDirectory) -> None:
    """Leave what a run leaves that was killed."""
    with run.exclusive():
        run.checkpoints.mkdir()
        (run.checkpoints / "ties-0123456789abcdef.ckpt").write_bytes(b"half")


@pytest.mark.filterwarnings(r"ignore:\s+'hydra/launcher/")  # as app/command_line.py does
@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=0,1", "labels=hard,soft", "trainer.learning_rate=0.1"],
        ["method=[ties],[tsv_m]", "++method.ties.density=0.5", "+new=1,2", "suite.tasks=[digits]"],
        ["experiment=table2_granularity", "seed=3", "~joint"],
        ["seed=0,1", "hydra.sweep.subdir=${hydra.job.num}-${hydra.job.override_dirname}"],
        ["seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ],
)
def test_the_runs_are_those_that_hydra_would_make(composed: Any, overrides: list[str]) -> None:
    config = composed(*overrides, "status=true")
    runs = runs_of_sweep(config)
    jobs = planned_jobs(composed(*overrides))
    assert runs is not None
    assert jobs is not None
    assert [list(run.overrides) for run in runs] == jobs
    loader = GlobalHydra.instance().config_loader()
    for number, overrides_of_job in enumerate(jobs):
        job = loader.load_sweep_config(composed(*overrides), overrides_of_job)
        with open_dict(job):
            job.hydra.job.num = number
        HydraConfig.instance().set_config(job)
        expected = os.path.join(job.hydra.sweep.dir, job.hydra.sweep.subdir)  # noqa: PTH118
        assert str(runs[number].directory.path) == expected
    assert len({run.directory.path for run in runs}) == len(jobs) > 1


def test_every_run_has_a_row_and_nothing_is_made(
    composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed(*TWO, "status=true")
    ask(config)
    assert "4 runs: 4 missing" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

    runs = runs_of_sweep(config)
    assert runs is not None
    first, second, third, _ = (run.directory for run in runs)
    with first.exclusive():
        first.finish({}, {"run_hash": first.run_hash})
    kill(second)
    third.path.mkdir()
    journal = Journal(tmp_path / "runs" / JOURNALS / "1")
    journal.write(Entry(2, (), str(third.path), "failed", "no \x1b[2J such task", refused=True))
    with second.exclusive():
        ask(config)
    text = capsys.readouterr().out
    assert "4 runs: 1 finished, 1 running, 1 failed, 1 missing" in text
    assert r"job 2 (method=[ties] seed=0) failed: no \x1b[2J such task" in text
    ask(config)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 runs: 1 finished, 1 failed, 1 interrupted, 1 missing"
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()][:4]
    assert [row[1:4] for row in rows] == [
        ["method=[simple_average]", "seed=0", "finished"],
        ["method=[simple_average]", "seed=1", "interrupted"],
        ["method=[ties]", "seed=0", "failed"],
        ["method=[ties]", "seed=1", "missing"],
    ]


def test_a_single_run_has_a_state_too(
    composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        AnswerFirst().on_run_start(composed("seed=3", "status=true"))
    assert ended.value.code == 0
    assert "1 run: 1 missing" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    AnswerFirst().on_run_start(composed("seed=3"))  # nothing is asked: the run begins


def test_a_question_is_no_value_to_sweep_over(tmp_path: Path) -> None:
    line = [sys.executable, "run.py", "-m", "status=true,1", f"hydra.sweep.dir={tmp_path}/runs"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("failed: status and delete_incomplete are of the whole command") == 4
    assert not list((tmp_path / "runs").glob("*/*.json"))


def test_a_config_that_will_be_refused_is_told_before_the_sweep(
    composed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(composed("statistics.rank=0,2", "status=true"))
    refused = "job 0 (statistics.rank=0) will be refused: statistics.rank=0: input should be gre"
    assert refused in capsys.readouterr().out


def test_experiments_that_are_sweeps_are_listed_one_by_one(
    composed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = composed("experiment=table2_granularity,learning_images", "seed=7", "status=true")
    assert [len(planned_jobs(sweep) or ()) for sweep in sweeps_of(config)] == [
        len(planned_jobs(composed(f"experiment={name}", "seed=7")) or ())
        for name in ("table2_granularity", "learning_images")
    ]
    ask(config)
    text = capsys.readouterr().out
    assert "experiment=table2_granularity: " in text
    assert "experiment=learning_images: " in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["status=maybe"], "status=maybe: input should be a valid boolean"),
        (["status=true", "delete_incomplete=true"], "status and delete_incomplete: one at a time"),
        (["labels=hard,medium", "status=true"], "labels=medium: choose one of "),
        (["job=report", "job.runs=.", "status=true"], "job=report keeps no results, so its "),
        (
            ["delete_incomplete=perhaps"],
            "delete_incomplete=perhaps: input should be False, ",
        ),
        (["delete_incomplete=true"], "delete_incomplete=true asks first, and there is no terminal"),
    ],
)
def test_mistakes_start_nothing(
    composed: Any, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(composed("seed=0,1", *overrides), status=2)
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1


def test_an_error_of_ours_starts_nothing(composed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("statsmerging.app.sweep_status.sweeps_of", None)
    ask(composed("seed=0,1", "status=true"), status=1)


def test_a_sweeper_that_plans_nothing_has_the_runs_that_it_began(
    composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searched = "trainer.learning_rate=tag(log,interval(1e-4,1e-1))"
    options = ["hydra/sweeper=teacher_agreement", searched, "threads=1"]
    jobs = {
        "a": ("trainer.learning_rate=0.01", "threads=1"),
        "b": ("trainer.learning_rate=0.02", "threads=1"),
        "other": ("trainer.learning_rate=0.02", "threads=2"),
        "../elsewhere": ("trainer.learning_rate=0.03", "threads=1"),
    }
    journal = Journal(tmp_path / "runs" / JOURNALS / "1")
    for number, (name, overrides) in enumerate(jobs.items()):
        directory = RunDirectory(tmp_path / "runs" / name, {})
        journal.write(Entry(number, overrides, str(directory.path), "done"))
        directory.finish({}, {})
    ask(composed(*options, "status=true"))
    text = capsys.readouterr().out
    assert "2 runs: 2 finished; the sweeper decides on others while it runs" in text
    ask(composed(*options, "delete_incomplete=confirmed"), status=2)


def test_only_incomplete_runs_are_deleted_and_only_after_a_yes(
    composed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = runs_of_sweep(composed(*TWO))
    assert runs is not None
    finished, killed, failed, running = (run.directory for run in runs)
    with finished.exclusive():
        finished.finish({}, {"run_hash": finished.run_hash})
    for run in (killed, failed, running):
        kill(run)
    failed.note_error("ValueError: too many")
    (failed.path / "notes.txt").write_text("mine")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def answer(text: str) -> str:
        monkeypatch.setattr("builtins.input", lambda question: text)
        with running.exclusive():
            ask(composed(*TWO, "delete_incomplete=true"))
        return capsys.readouterr().out

    for refusal in ("", "n", "maybe"):
        assert "nothing was deleted" in answer(refusal)
        assert killed.config.exists()
    text = answer("y")
    assert "2 of 2 runs deleted" in text
    assert not killed.path.exists()
    assert [path.name for path in failed.path.iterdir()] == ["notes.txt"]
    assert finished.finished
    assert running.checkpoints.exists()
    ask(composed(*TWO, "delete_incomplete=confirmed"))  # by now it is killed
    assert not running.path.exists()
    assert finished.finished
    ask(composed(*TWO, "delete_incomplete=confirmed"))
    assert "nothing to delete" in capsys.readouterr().out


def test_a_real_sweep_is_seen_from_outside(small_run: list[str], tmp_path: Path) -> None:
    """A sweep whose second run takes for ever, and is killed."""
    arguments = [*small_run, "trainer.steps=2,200000", f"hydra.sweep.dir={tmp_path}/runs"]

    def command(*more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "run.py", "-m", *arguments, *more]
        return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)

    driver = subprocess.Popen(
        [sys.executable, "run.py", "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list((tmp_path / "runs").glob("*/checkpoints/*.ckpt"))) < 2 or not list(
        (tmp_path / "runs").glob("*/manifest.json")
    ):
        assert driver.poll() is None
        time.sleep(0.2)
    seen = command("status=true")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "2 runs: 1 finished, 1 running" in seen.stdout
    assert "at step " in seen.stdout
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    seen = command("status=true")
    assert "2 runs: 1 finished, 1 interrupted" in seen.stdout
    assert "continues at step " in seen.stdout
    assert "of stats_merging" in seen.stdout
    refused = command("delete_incomplete=true")
    assert (refused.returncode, refused.stdout) == (2, "")
    deleted = command("delete_incomplete=confirmed")
    assert "1 of 1 run deleted" in deleted.stdout
    assert "2 runs: 1 finished, 1 missing" in command("status=true").stdout
