"""Small runs of every kind, started as a user would, and what they leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from safetensors.torch import save_file

from statsmerging.store.files import read_json
from tests.conftest import ROOT, SMALL_RUN, SMALL_VIT, write_suite

#: The jobs that are disturbed, and what each is given. ``{folder}`` is where it writes.
JOBS = {
    "merge": ["hydra.run.dir={folder}/run"],
    "finetune": ["job=finetune", "hydra.run.dir={folder}/run"],
    "sweep": ["-m", "seed=0,1,2", "hydra.sweep.dir={folder}"],
    "report": ["job=report", "job.runs={runs}", "hydra.run.dir={folder}/run"],
}

#: Jobs that find the experts in their cache; finetune has to make them.
WARM = ("merge", "sweep", "report")

#: No run here takes longer, also on a busy machine.
PATIENCE = 300


@dataclass(frozen=True)
class Outcome:
    """How a process ended."""

    status: int
    errors: str


class Sandbox:
    """The small suite, its weights, a warm cache, and what undisturbed runs give.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        write_suite(root / "suite")
        torch.manual_seed(0)
        weights = root / "vit.safetensors"
        save_file(timm.create_model("vit_tiny_patch16_224", **SMALL_VIT).state_dict(), weights)
        arguments = ",".join(f"{key}:{value}" for key, value in SMALL_VIT.items())
        self._settings = [
            "suite=folder",
            f"suite.root={root / 'suite'}",
            f"backbone.weights={weights}",
            f"backbone.arguments={{{arguments}}}",
            "threads=1",
            *SMALL_RUN,
        ]
        self.warm, self.runs = root / "warm", root / "undisturbed" / "sweep"
        self.expected: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        for job in ("sweep", "merge", "finetune", "report"):
            folder = root / "undisturbed" / job
            cache = self.warm if job in WARM else root / "undisturbed cache"
            began = time.monotonic()
            outcome = self.finish(job, folder, cache)
            assert outcome.status == 0, outcome.errors
            self.seconds[job] = time.monotonic() - began
            self.expected[job] = numbers(folder)

    def fresh(self, job: str, name: str) -> tuple[Path, Path]:
        """An empty folder for a run, and a cache as the job expects it."""
        place = self.root / "trial" / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "out").mkdir(parents=True)
        if job in WARM:
            shutil.copytree(self.warm, place / "cache")
        return place / "out", place / "cache"

    def start(
        self, job: str, folder: Path, cache: Path, **environment: str
    ) -> subprocess.Popen[str]:
        """Start the job in a process group of its own."""
        given = [text.format(folder=folder, runs=self.runs) for text in JOBS[job]]
        flags, overrides = given[: given[0] == "-m"], given[given[0] == "-m" :]
        command = [sys.executable, str(ROOT / "run.py"), *flags, *self._settings, *overrides]
        return subprocess.Popen(
            [*command, f"cache={cache}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )

    def finish(self, job: str, folder: Path, cache: Path, **environment: str) -> Outcome:
        """Run the job to its end."""
        return wait(self.start(job, folder, cache, **environment))

    def same_numbers(self, job: str, folder: Path) -> bool:
        """Whether a run gave what the undisturbed one gave: nothing lost, nothing doubled."""
        return numbers(folder) == self.expected[job]


def wait(process: subprocess.Popen[str]) -> Outcome:
    """How the process ends, and what it said on standard error."""
    _, errors = process.communicate(timeout=PATIENCE)
    return Outcome(process.returncode, errors)


def send(process: subprocess.Popen[str], number: signal.Signals) -> Outcome:
    """Send a signal to the process and all its children."""
    if process.poll() is None:
        os.killpg(process.pid, number)
    return wait(process)


def numbers(folder: Path) -> dict[str, Any]:
    """Every result below a folder by its relative path: tables, coefficients, reports."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "results.json":
            found[name] = read_json(path)["methods"]
        elif path.name == "coefficients.parquet":
            found[name] = pd.read_parquet(path).to_dict("list")
        elif path.name == "report.md":
            found[name] = path.read_text()
    return found


def remains(*folders: Path) -> int:
    """Number of half-written files."""
    return sum(1 for folder in folders for _ in folder.rglob("*.partial"))
