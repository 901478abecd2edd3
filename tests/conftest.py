"""Fixtures shared by all tests: small weights, a small suite on disk, and a job runner."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import settings
from omegaconf import OmegaConf
from torch import Tensor

from statsmerging.app.command_line import run_checked
from statsmerging.merging import TaskVectorBank
from tests.small_models import TinyBackbone, random_experts

ROOT = Path(__file__).parent.parent

#: Where the real data and weights for the optional tests are: `data/` and `weights/` below it.
REAL_DATA_VARIABLE = "STATSMERGING_REAL_DATA"

JobRunner = Callable[..., dict[str, Any]]

# How long an example takes says how busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def backbone() -> TinyBackbone:
    torch.manual_seed(0)
    return TinyBackbone().eval()


@pytest.fixture
def pretrained(backbone: TinyBackbone) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


@pytest.fixture
def experts(pretrained: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return random_experts(pretrained, ("mnist", "svhn", "cars"))


@pytest.fixture
def bank(pretrained: dict[str, Tensor], experts: dict[str, dict[str, Tensor]]) -> TaskVectorBank:
    return TaskVectorBank.from_state_dicts(pretrained, experts)


@pytest.fixture(scope="session")
def suite_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small tasks of real digits in the local layout of Hugging Face ``datasets``."""
    return write_suite(tmp_path_factory.mktemp("suite"))


def write_suite(root: Path, images_per_split: int = 48) -> Path:
    """Tasks ``parity`` and ``size`` on disjoint handwritten digits, as parquet files."""
    import datasets
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = {"parity": digits.target % 2, "size": digits.target // 5}
    names = {"parity": ["even", "odd"], "size": ["below five", "five and more"]}
    order = np.random.default_rng(0).permutation(len(digits.target)).tolist()
    for task, classes in labels.items():
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=names[task])}
        )
        for split in ("train", "validation", "test"):
            rows = [order.pop() for _ in range(images_per_split)]
            table = {
                "image": [
                    Image.fromarray((digits.images[row] * 15).astype("uint8")) for row in rows
                ],
                "label": [int(classes[row]) for row in rows],
            }
            path = root / task / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(table, features=features).to_parquet(str(path))
    return root


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests that do not test caching."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised small ViT, as a timm user would save it."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small_vit.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", **SMALL_VIT).state_dict(), path)
    return path


@pytest.fixture
def small_run(suite_root: Path, shared_cache: Path, small_weights: Path) -> list[str]:
    """Overrides for a run of seconds on the small suite."""
    return small_overrides(suite_root, shared_cache, small_weights)


def small_overrides(suite_root: Path, cache: Path, weights: Path) -> list[str]:
    """Overrides for a run of seconds on a suite of the two small tasks."""
    arguments = ",".join(f"{key}:{value}" for key, value in SMALL_VIT.items())
    return [
        "suite=folder",
        f"suite.root={suite_root}",
        f"cache={cache}",
        f"backbone.weights={weights}",
        f"backbone.arguments={{{arguments}}}",
        *SMALL_RUN,
    ]


@pytest.fixture
def run_job(small_run: list[str], tmp_path: Path) -> JobRunner:
    """Run a job in this process on the small suite: overrides in, ``results.json`` out."""
    return lambda *overrides, directory=tmp_path / "run": run_in_process(
        [*small_run, *overrides], directory
    )


#: A network and schedules that take seconds.
SMALL_VIT: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 1,
    "num_heads": 2,
}
SMALL_RUN = (
    "accelerator=cpu",
    "zoo.finetuning.steps=40",
    "zoo.finetuning.learning_rate=3e-3",
    "zoo.finetuning.batch_size=16",
    "trainer.steps=6",
    "trainer.steps_per_epoch=2",
    "trainer.images_per_task=4",
)


def run_in_process(overrides: list[str], directory: Path) -> dict[str, Any]:
    """Compose the config as the command line does and run its job."""
    from statsmerging.app.config import parse_config
    from statsmerging.runs.directory import RunDirectory
    from statsmerging.store.files import read_json

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", overrides=overrides)
    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    config = parse_config(values)
    run = RunDirectory(directory, values)
    run_checked(config, run)
    results: dict[str, Any] = read_json(run.results) if run.results.exists() else {}
    return results


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with the real data sets and weights, named by an environment variable."""
    place = os.environ.get(REAL_DATA_VARIABLE)
    if place is None or not Path(place).is_dir():
        pytest.skip(f"{REAL_DATA_VARIABLE} names no folder with data/ and weights/")
    return Path(place)
