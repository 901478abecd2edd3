"""Heads, fine-tuning and the experts' files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import ImageSplit, SuiteImages
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.learning import finetuning as finetuned
from statsmerging.learning.finetuning import train_supervised, warmup_cosine
from statsmerging.learning.joint import joint_weights
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Expert, Zoo, read_expert, write_expert
from statsmerging.zoo.heads import PROBE_STRENGTH, Head, fit_linear_probe
from statsmerging.zoo.network import Network
from statsmerging.zoo.settings import (
    BackboneSettings,
    FinetunedZooSettings,
    OwnHeadsSettings,
    TrainingSettings,
)
from statsmerging.zoo.weights import FileTensors, Weights
from tests.zoo.test_backbones import settings

HALF = (0.5, 0.5, 0.5)


def training(steps: int = 6, seed: int = 0) -> TrainingSettings:
    return TrainingSettings(
        steps=steps, batch_size=8, learning_rate=1e-3, weight_decay=0.01, warmup=0.5, seed=seed
    )


@pytest.mark.parametrize("classes", [2, 5])
def test_linear_probe_predicts_as_logistic_regression_on_standardised_features(
    classes: int,
) -> None:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (300,), generator=generator)
    features = 3 + 4 * torch.randn(300, 6, generator=generator)
    features[:, 0] += 3 * labels
    head = fit_linear_probe(features, labels, classes)
    scaled = ((features - features.mean(0)) / features.std(0)).numpy()
    reference = LogisticRegression(C=PROBE_STRENGTH, max_iter=1000).fit(scaled, labels.numpy())
    found = head(features).softmax(1).numpy()
    np.testing.assert_allclose(found, reference.predict_proba(scaled), atol=2e-3)


def test_a_class_without_training_image_is_never_predicted() -> None:
    labels = torch.tensor([0, 2] * 20)
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    head = fit_linear_probe(features, labels, 4)
    assert head.weight.shape == (4, 3)
    assert set(head(features).argmax(1).tolist()) <= {0, 2}


def test_images_of_one_class_are_refused() -> None:
    with pytest.raises(UserError, match="all training images are of one class"):
        fit_linear_probe(torch.randn(8, 3), torch.ones(8, dtype=torch.int64), 4)


def test_training_leaves_frozen_head_and_running_statistics() -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", num_classes=0)
    head = Head(torch.randn(3, 512), torch.zeros(3))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    weight = head.weight.clone()
    images = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    split = ImageSplit(images, torch.arange(16) % 3, torch.zeros(16, 16), "key")
    train_supervised(
        backbone,
        head,
        split,
        Preprocess(32, HALF, HALF),
        training(steps=2),
        accelerator="cpu",
        description="test",
    )
    after = backbone.state_dict()
    assert torch.equal(head.weight, weight)
    for name, value in before.items():
        running = "running" in name or "num_batches" in name
        if running:
            assert torch.equal(after[name], value), name
    assert not torch.equal(after["conv1.0.weight"], before["conv1.0.weight"])


def test_joint_training_leaves_running_statistics_too(tmp_path: Path) -> None:
    backbone = timm.create_model("resnet10t", num_classes=0)
    network = Network(backbone, Preprocess(32, HALF, HALF), torch.device("cpu"))
    start = network.initial
    head = Head(torch.randn(3, 512, generator=torch.Generator().manual_seed(0)), torch.zeros(3))
    zoo = Zoo(network, start, {"task": Expert(start, head)})
    pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    splits = {"task": ImageSplit(pixels, torch.arange(16) % 3, torch.zeros(16, 16), "key")}
    cache = Cache(tmp_path)
    weights = joint_weights(zoo, splits, training(steps=2), cache=cache, accelerator="cpu")
    changed = {name for name, value in start.items() if not torch.equal(weights[name], value)}
    assert "conv1.0.weight" in changed
    assert not [name for name in changed if "running" in name or "num_batches" in name]


def test_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [warmup_cosine(step, training(steps=10)) for step in range(11)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[5] == pytest.approx(1.0)
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[10] == pytest.approx(0.0)


def make_zoo(
    root: Path, backbone: BackboneSettings, cache: Path, tasks: list[str] | None = None
) -> dict[str, Expert]:
    suite = folder_suite(root, tasks, [], cache=cache / "datasets")
    images = SuiteImages(suite, Preprocess(32, HALF, HALF), Cache(cache))
    settings = FinetunedZooSettings(
        kind="finetuned",
        root=None,
        seed=0,
        pretraining=training(),
        finetuning=training(),
        lora_rank=None,
    )
    zoo = finetuned.finetuned_zoo(
        backbone,
        settings,
        OwnHeadsSettings(kind="own"),
        images,
        cache=Cache(cache),
        accelerator="cpu",
    )
    return dict(zoo.experts)


def test_experts_are_made_once_and_independent_of_the_order_of_tasks(
    suite_root: Path, small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    backbone = settings(weights=str(small_weights), arguments=arguments)
    first = make_zoo(suite_root, backbone, tmp_path / "one")
    other = make_zoo(suite_root, backbone, tmp_path / "two", ["size", "parity"])
    for task in ("parity", "size"):
        for name, value in first[task].state.items():
            assert torch.equal(value, other[task].state[name])

    monkeypatch.setattr(finetuned, "train_supervised", None)
    again = make_zoo(suite_root, backbone, tmp_path / "one")
    assert torch.equal(again["size"].head.weight, first["size"].head.weight)


def test_expert_file_round_trip(tmp_path: Path) -> None:
    backbone = nn.Linear(3, 2)
    head = Head(torch.randn(4, 2), torch.randn(4))
    made = Expert(Weights(backbone.state_dict()), head)
    write_expert(tmp_path / "expert.safetensors", made)
    read = read_expert(tmp_path / "expert.safetensors")
    assert torch.equal(read.state["weight"], backbone.weight)
    assert read.state.sha256 == made.state.sha256
    assert torch.equal(read.head.bias, head.bias)


def test_a_head_that_normalises_stays_one_in_a_file(tmp_path: Path) -> None:
    features, weight = torch.randn(6, 3, dtype=torch.float64), torch.randn(4, 3).double()
    head = Head(weight, torch.zeros(4).double(), normalises=True)
    cosines = features @ weight.T / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(features), cosines)
    write_expert(tmp_path / "expert.safetensors", Expert(Weights({"x": torch.zeros(1)}), head))
    read = read_expert(tmp_path / "expert.safetensors").head
    assert read.normalises
    assert torch.equal(read(features), head(features))


def test_tensors_on_disk_are_let_go(tmp_path: Path) -> None:
    """Reading every tensor once must not leave the whole file in resident memory."""
    path = tmp_path / "weights.safetensors"
    save_file({str(i): torch.full((1 << 20,), float(i)) for i in range(32)}, path)  # 128 MiB
    process = psutil.Process()
    tensors = FileTensors(path)
    before = process.memory_info().rss
    peaks = []
    for name in tensors:
        assert tensors[name].mean() == float(name)
        peaks.append(process.memory_info().rss)
    assert max(peaks) - before < 48 << 20
