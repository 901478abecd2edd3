"""Finished runs with everything that a bundle holds, of the machine of somebody, and bundles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statsmerging.app.config import JobSettings
from statsmerging.app.run import Run
from statsmerging.jobs.bundle import bundle
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.outcomes import write_outcomes
from statsmerging.runs.results import MethodResult, TaskAccuracy, run_results
from statsmerging.store.hashing import json_sha256

#: Test images of each task.
IMAGES = {"mnist": 40, "svhn": 60}

#: Whose machine it was: this name is in the paths of every run.
PERSON = "alice"


def finished(
    folder: Path,
    methods: Mapping[str, float],
    *,
    seed: int = 0,
    home: str = f"/home/{PERSON}",
    experts: str = "first",
    images: str = "these",
    learned: bool = False,
    **config: Any,
) -> Path:
    """A finished run; the accuracy of each method is about that given.

    Args:
        folder: the run directory.
        methods: name → accuracy.
        seed: of the merging step.
        home: folder of data and weights; the machine's.
        experts: the content of their weights.
        images: the content of the test images.
        learned: whether there are coefficients, statistics and learning curves of ``free``; a
            report draws them, which takes long.
        config: further sections of the config.
    """
    root = f"{home}/data/mini"
    whole = {
        "job": {"name": "merge"},
        "suite": {"name": "toy", "root": root},
        "backbone": {"label": "vit", "weights": f"{home}/my weights/vit.safetensors"},
        "seed": seed,
        "zoo": {"kind": "finetuned", "seed": 0},
        "method": {name: {} for name in methods},
        "plugins": [f"{home}/plugin.py"],
        "cache": f"{home}/cache",
        "logger": {"wandb": {"entity": PERSON}},
        **config,
    }
    random = np.random.default_rng([seed, len(methods)])
    rows = {"individual": 0.9, **methods}
    scores = {name: _scored(accuracy, random) for name, accuracy in rows.items()}
    directory = RunDirectory(folder, whole)
    folder.mkdir(parents=True)
    if learned:
        _write_learned(directory, random, root)
    (folder / "merged.safetensors").write_bytes(b"weights")
    (folder / "run.log").write_text(f"read {root}\n")
    write_outcomes(directory.outcomes, scores)
    results = run_results(
        scores,
        run_hash=directory.run_hash,
        suite="toy",
        backbone="vit",
        seed=seed,
        stamps=[],
        failed={"ties": f"cannot open '{home}/data/mini/mnist/1.png'"},
        warnings=[f"few images in {root}, and 1/2 of them dark; see https://example.org/a/b"],
    )
    manifest = {
        "run_hash": directory.run_hash,
        "command": [
            f"{home}/StatsMerging/run.py",
            "-m",
            f"suite.root={root}",
            f"cache={home}/cache",
            f"logger.wandb.entity={PERSON}",
            "seed=0,1",
        ],
        "config": whole,
        "code": {"statsmerging": "0.1.0", "commit": "abc123", "modified": False},
        "plugins": {"plugin.py": {"path": f"{home}/plugin.py", "sha256": "5" * 64}},
        "hardware": {"platform": f"Linux-6.1-{PERSON}s-laptop-x86_64", "cpu": "a processor"},
        "weights": {"pretrained": json_sha256(experts)},
        "files": {
            "backbone.weights": {
                "path": f"{home}/my weights/vit.safetensors",
                "bytes": 7,
                "sha256": "7" * 64,
            }
        },
        "data": {f"{task}/test": json_sha256([images, task]) for task in IMAGES},
        "inputs": {f"{root}/mnist/1.png": [10, 1_700_000_000_000_000_000]},
    }
    directory.finish(results.as_json(), manifest)
    return folder


def sent(runs: Path, target: Path, by: str | None = None) -> Path:
    """The bundle of some runs."""
    config = SimpleNamespace(job=JobSettings(name="bundle", runs=runs, target=target, by=by))
    bundle(cast("Run", SimpleNamespace(config=config)))
    return target


def repacked(path: Path, changed: Mapping[str, bytes | None], *, listed: bool = False) -> None:
    """Replace, add or (``None``) remove files of a bundle.

    Args:
        path: the bundle.
        changed: name → content.
        listed: whether the list of the bundle is made to fit.
    """
    files: dict[str, bytes | None] = {**contents(path), **changed}
    kept = {name: content for name, content in files.items() if content is not None}
    if listed:
        about = json.loads(kept["bundle.json"])
        about["files"] = {
            name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}
            for name, content in kept.items()
            if name != "bundle.json"
        }
        kept["bundle.json"] = json.dumps(about).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)


def contents(path: Path) -> dict[str, bytes]:
    """Name → content of the files of a bundle."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _scored(accuracy: float, random: np.random.Generator) -> MethodResult:
    right: dict[str, NDArray[np.bool_]] = {
        task: random.random(count) < accuracy for task, count in IMAGES.items()
    }
    cells = {task: TaskAccuracy(float(r.mean()), len(r), r) for task, r in right.items()}
    return MethodResult(cells)


def _write_learned(directory: RunDirectory, random: np.random.Generator, root: str) -> None:
    """Coefficients, statistics and a learning curve with what a logger writes beside it."""
    cells = pd.DataFrame(
        [(f"blocks.{block}.fc.weight", task) for block in (0, 1) for task in IMAGES],
        columns=["layer", "task"],
    )
    cells.assign(method="free", coefficient=random.random(4)).to_parquet(directory.coefficients)
    cells.assign(mean=random.random(4)).to_parquet(directory.statistics)
    curve = directory.path / "learning_curves" / "free" / "version_0" / "metrics.csv"
    curve.parent.mkdir(parents=True)
    curve.write_text("step,loss,learner_gradient_norm\n0,2.0,1.0\n1,1.5,0.5\n")
    (curve.parent / "hparams.yaml").write_text(f"root: {root}\n")
