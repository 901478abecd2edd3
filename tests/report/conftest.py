"""Run directories as runs leave them, without running anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf

from statsmerging.merging.bank import Coefficient
from statsmerging.runs.directory import run_hash
from statsmerging.runs.layer_tables import write_coefficients
from statsmerging.runs.results import RunResults
from statsmerging.store.files import read_json, write_json

#: Layers of a small network: two blocks, and a tensor before them.
LAYERS = tuple(f"blocks.{block}.{part}" for block in (0, 1) for part in ("attn.weight", "fc.bias"))

#: Number of directions of each layer of a block of ``singular_run``.
RANKS = {"attn.weight": 24, "fc.weight": 3, "fc.bias": 1}

WriteRun = Callable[..., Path]


def results(seed: int, averages: dict[str, float], **facts: Any) -> dict[str, Any]:
    """``results.json`` of two tasks, five points apart on both sides of the average."""
    rows = {
        method: {
            "title": f"The {method}",
            "accuracy": {"mnist": average + 0.05, "sign_digits": average - 0.05},
            "average": average,
            "normalised_average": average / averages["individual"],
        }
        for method, average in averages.items()
    }
    about = {"suite": "toy", "backbone": "vit", "stamps": [], "seed": seed, "methods": rows}
    return about | facts


def typed(content: dict[str, Any]) -> RunResults:
    """The results that such a file is read as."""
    return RunResults.model_validate(content)


def write_records(folder: Path, config: dict[str, Any]) -> None:
    """Config and manifest as a version wrote them that recorded no hashes of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    write_json(folder / "manifest.json", {"config": config, "run_hash": run_hash(config)})


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes one finished run; returns the folder of all runs."""

    def write(name: str, averages: dict[str, float], seed: int = 0, **config: Any) -> Path:
        folder = tmp_path / "runs" / name
        methods: dict[str, Any] = {method: {} for method in averages if method != "individual"}
        whole = {"suite": {"name": "toy"}, "seed": seed, "method": methods} | config
        write_json(folder / "results.json", results(seed, averages))
        write_records(folder, whole)
        return tmp_path / "runs"

    return write


@pytest.fixture
def learned_run(write_run: WriteRun) -> Path:
    """One run of a learned method, with all files that such a run may have."""
    runs = write_run("learned", {"individual": 0.9, "free": 0.6})
    folder = runs / "learned"
    tasks = ("mnist", "sign_digits")
    cells = [(layer, task) for layer in ("cls_token", *LAYERS) for task in tasks]
    values = [0.1 * number - 0.2 for number in range(len(cells))]
    frame = pd.DataFrame(cells, columns=["layer", "task"])
    frame.assign(method="free", coefficient=values).to_parquet(folder / "coefficients.parquet")
    raw = frame.assign(mean=values, magnitude=[value + 1 for value in values])
    raw.to_parquet(folder / "statistics.parquet")
    for life, steps in enumerate([(0, 1, 2), (2, 3)]):
        curve = pd.DataFrame({"step": steps, "loss": [10.0 * life + step for step in steps]})
        path = folder / "learning_curves" / "free" / f"version_{life}" / "metrics.csv"
        path.parent.mkdir(parents=True)
        curve.assign(learner_gradient_norm=1.0).to_csv(path, index=False)
    cosines = {"mnist": {"mnist": 1.0, "sign_digits": 0.25}}
    cosines["sign_digits"] = {"mnist": 0.25, "sign_digits": 1.0}
    expert = {"architecture": "resnet18", "teacher": 0.95, "student": 0.905, "images": 200}
    about = results(
        0,
        {"individual": 0.9, "free": 0.6},
        task_vector_cosines=cosines,
        distilled={"mnist": expert},
        warnings=["a task is sacrificed"],
    )
    write_json(folder / "results.json", about)
    return runs


@pytest.fixture
def singular_run(write_run: WriteRun) -> Path:
    """One run whose method has coefficients of singular directions, and movements of the weights.

    λ = 1 − i / r for the first task, 0.5 higher for the second; of biases 4. A matrix outside of
    blocks has r = 4.
    """
    runs = write_run("singular", {"individual": 0.9, "free": 0.6})
    ranks = {"patch.weight": 4}
    for block in (0, 1):
        ranks |= {f"blocks.{block}.{part}": r for part, r in RANKS.items()}
    listed = [
        Coefficient(layer, task, 4.0 if r == 1 else higher + 1 - i / r, i, 1.0 / (i + 1))
        for layer, r in ranks.items()
        for task, higher in (("mnist", 0.0), ("sign_digits", 0.5))
        for i in range(r)
    ]
    write_coefficients(runs / "singular" / "coefficients.parquet", {"free": listed})
    about = results(0, {"individual": 0.9, "free": 0.6})
    about["methods"]["free"] |= {
        "parameters": {"granularity": "singular_wise", "learner": "free"},
        "movement": {
            "matrices": {"largest_coefficient": 1.5, "relative": 0.125},
            "vectors": {"largest_coefficient": 4.0, "relative": None},
        },
    }
    write_json(runs / "singular" / "results.json", about)
    return runs


@pytest.fixture
def costed_runs(write_run: WriteRun) -> Path:
    """Two seeds of a method that learns and of one that costs nothing but seconds."""
    for seed in (0, 1):
        runs = write_run(f"costed-{seed}", {"individual": 0.9, "ties": 0.5, "free": 0.6}, seed)
        path = runs / f"costed-{seed}" / "results.json"
        content = read_json(path)
        nothing = dict.fromkeys(("images", "forward_passes", "backward_passes", "parameters"), 0)
        learned = {"images": 2560, "forward_passes": 3560, "backward_passes": 2560}
        content["methods"]["ties"]["cost"] = nothing
        content["methods"]["free"]["cost"] = {**learned, "parameters": 1264}
        bank = {"bank": 2.0, "scoring": 9.0}
        content["measured"] = {
            "ties": {"seconds": {**bank, "merging": 0.25}, "memory": {"merging": 2**20}},
            "free": {
                "seconds": {**bank, "evidence": 1.0, "learning": 10.0 + seed, "merging": 0.5},
                "memory": {"bank": 2**30, "learning": 3 * 2**20, "merging": 2**20},
                "memory_of": "host",
                "cached": ["evidence"] if seed else [],
                "resumed": bool(seed),
            },
        }
        write_json(path, content)
    return runs


@pytest.fixture
def corrupted_runs(write_run: WriteRun) -> Path:
    """A clean run, and two severities of one corruption with two seeds each."""
    clean = {"kind": "none", "severity": 2, "constants": "c", "protocol": "p"}
    runs = write_run("clean", {"individual": 0.9, "ties": 0.8}, corruption=clean)
    for severity in (1, 3):
        for seed in (0, 1):
            corruption = clean | {"kind": "contrast", "severity": severity}
            average = 0.8 - 0.1 * severity + 0.02 * seed
            name = f"contrast-{severity}-{seed}"
            write_run(name, {"individual": 0.9, "ties": average}, seed, corruption=corruption)
    return runs


#: A name that is markup, if anything forgets that it is text.
HOSTILE = "</script><b>bold<!--"


@pytest.fixture
def sweep_runs(write_run: WriteRun) -> Path:
    """Two kinds of labels with two seeds each, one run of a hostile name; complete manifests."""
    accuracies = {("hard", 0): 0.09, ("hard", 1): 0.095, ("soft", 0): 0.7, ("soft", 1): 0.72}
    for (kind, seed), average in accuracies.items():
        name = HOSTILE.replace("/", "-") if (kind, seed) == ("hard", 0) else f"{kind}-{seed}"
        averages = {"individual": 0.9, "ties": 0.5, "free": average}
        runs = write_run(name, averages, seed, labels={"kind": kind}, note=HOSTILE)
        folder = runs / name
        manifest = read_json(folder / "manifest.json") | {
            "command": ["run.py", "-m", "labels=hard,soft", "seed=0,1"],
            "code": {"statsmerging": "0.1.0", "commit": "abc123", "modified": True},
            "packages": {"torch": "2.15.0"},
            "hardware": {"cpu": "a processor", "gpus": []},
        }
        write_json(folder / "manifest.json", manifest)
        if kind == "soft":
            told = {"stamps": ["tuned on labels"], "warnings": [HOSTILE]}
            write_json(folder / "results.json", read_json(folder / "results.json") | told)
    return runs
