"""A sweep on a real SLURM: cancelled, requeued and out of time, and nothing is lost or doubled.

Needs a cluster that `sinfo` reaches, with accounting, and a partition whose jobs may run for two
minutes; one machine with two cores is enough.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from statsmerging.store.files import read_json
from tests.app.test_command_line import command
from tests.conftest import ROOT

JOBS = 12

#: Steps of the first two jobs: they learn long enough to be cancelled in the middle of it.
MIDDLE = (6000, 6002)

#: Steps of the last job: it learns for longer than its time limit lets it.
LONG = 20_000

SLURM = [
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.timeout_min=2",
    "hydra.launcher.signal_delay_s=20",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=2",
]


def slurm(*arguments: str) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the cluster took too long"
        time.sleep(1)


@pytest.fixture
def cluster() -> None:
    if shutil.which("sinfo") is None:
        pytest.skip("there is no SLURM here (no sinfo)")
    try:
        slurm("sinfo")
        slurm("sacct")
    except subprocess.SubprocessError:
        pytest.skip("no SLURM with accounting answers sinfo and sacct")


def numbers(sweep: Path) -> dict[str, Any]:
    """Run directory → its methods' rows."""
    found = sweep.rglob("results.json")
    return {path.parent.name: read_json(path)["methods"] for path in found}


def lives(directory: Path) -> int:
    """How often the learning began or continued."""
    return len(list((directory / "learning_curves" / "stats_merging").iterdir()))


def learn(sweep: Path, count: int) -> bool:
    """Whether so many jobs have a checkpoint: they are in the middle of their learning."""
    return len({path.parent for path in sweep.rglob("*.ckpt")}) >= count


@pytest.mark.timeout(1500)
def test_a_job_array_survives(cluster: None, small_run: list[str], tmp_path: Path) -> None:
    short = range(4, 4 + 2 * (JOBS - len(MIDDLE) - 1), 2)
    steps = ",".join(map(str, [*MIDDLE, *short, LONG]))
    jobs = [*small_run, "threads=1", f"trainer.steps={steps}"]
    sweep, serial = tmp_path / "slurm", tmp_path / "serial"

    arguments = ["-m", *jobs, *SLURM, f"hydra.sweep.dir={sweep}"]
    driver = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: learn(sweep, len(MIDDLE)), 300)
    array = next(path.name for path in (sweep / ".submitit").iterdir() if path.name.isdigit())
    cancelled = [f"{array}_{number}" for number in range(len(MIDDLE))]
    for job in cancelled:
        slurm("scancel", job)
    output, _ = driver.communicate(timeout=900)
    assert driver.returncode == 1, output
    assert "jobs done" in output

    for job in cancelled:
        slurm("scontrol", "requeue", job)
    wait_until(lambda: not slurm("squeue", "--noheader", "--jobs", array).strip(), 900)
    assert len(numbers(sweep)) == JOBS

    again = command(*arguments)
    assert again.returncode == 0, again.stderr
    assert f"{JOBS} of {JOBS} jobs done" in again.stdout

    alone = command("-m", *jobs, f"hydra.sweep.dir={serial}", f"cache={tmp_path}/cache")
    assert alone.returncode == 0, alone.stderr
    assert numbers(sweep) == numbers(serial)

    config = {name: read_json(sweep / name / "manifest.json")["config"] for name in numbers(sweep)}
    interrupted = {name for name in config if config[name]["trainer"]["steps"] in (*MIDDLE, LONG)}
    assert {name for name in config if lives(sweep / name) > 1} == interrupted
