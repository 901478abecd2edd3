"""Distillation into another architecture: what is learned, from what, and what survives a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.learning import heterogeneous as students
from statsmerging.learning.data_module import UnlabeledBatch
from statsmerging.learning.heterogeneous import Distillation, student_weights
from statsmerging.learning.settings import StudentSettings
from statsmerging.merging import TaskVectorBank
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import Network
from statsmerging.zoo.weights import Weights
from tests.kills import KilledError, killed_in_step
from tests.small_models import TinyBackbone

CPU = torch.device("cpu")
PREPROCESS = Preprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def target() -> Zoo:
    """A small backbone at θ₀ with a head for three classes."""
    torch.manual_seed(0)
    backbone = TinyBackbone()
    network = Network(backbone, PREPROCESS, CPU)
    head = Head(torch.randn(3, 5), torch.zeros(3))
    return Zoo(network, network.initial, {"task": Expert(network.initial, head)})


def images_without_labels(count: int = 64) -> ImageSplit:
    """Flat colours, and labels that no head could learn."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randint(256, (count, 3, 1, 1), generator=generator, dtype=torch.uint8)
    digests = torch.zeros(count, 16, dtype=torch.uint8)
    labels = torch.full((count,), -1)
    return ImageSplit(colours.expand(-1, -1, 8, 8).contiguous(), labels, digests, "colours")


def scores_of(zoo: Zoo, state: Weights, images: ImageSplit) -> Tensor:
    features = zoo.network.features(state, images.images, description="test")
    scores: Tensor = zoo.experts["task"].head(features)
    return scores


def another_expert(zoo: Zoo) -> Weights:
    """Weights of the same architecture that predict other classes than θ₀."""
    generator = torch.Generator().manual_seed(2)
    return Weights(
        {
            name: value
            if "normalisation" in name
            else value + 0.5 * torch.randn(value.shape, generator=generator)
            for name, value in zoo.pretrained.items()
        }
    )


def settings(**changes: Any) -> StudentSettings:
    values: dict[str, Any] = {
        "images": "validation",
        "temperature": 2.0,
        "steps": 6,
        "batch_size": 16,
        "learning_rate": 0.03,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "steps_per_epoch": 2,
        "seed": 0,
    }
    return StudentSettings(**{**values, **changes})


def distilled(cache: Path, teacher: Tensor, **changes: Any) -> Weights:
    return student_weights(
        target(),
        "task",
        images_without_labels(),
        teacher,
        settings(**changes),
        cache=Cache(cache),
        accelerator="cpu",
    )


@pytest.fixture
def teacher() -> Tensor:
    zoo = target()
    return scores_of(zoo, another_expert(zoo), images_without_labels())


def test_equal_architectures_end_at_the_teachers_predictions(
    tmp_path: Path, teacher: Tensor
) -> None:
    zoo, images = target(), images_without_labels()
    before = scores_of(zoo, zoo.pretrained, images).argmax(1)
    student = distilled(tmp_path, teacher, steps=200, steps_per_epoch=200)
    after = scores_of(zoo, student, images).argmax(1)
    assert (before == teacher.argmax(1)).float().mean() < 0.7
    assert (after == teacher.argmax(1)).float().mean() > 0.95


def test_a_student_differs_from_its_start_in_weights_alone(tmp_path: Path, teacher: Tensor) -> None:
    start = target().pretrained
    student = distilled(tmp_path, teacher)
    moved = {name for name in start if not torch.equal(start[name], student[name])}
    running = {name for name in start if "running" in name or "num_batches" in name}
    assert running
    assert moved == set(start) - running
    bank = TaskVectorBank.from_state_dicts(start, {"task": student})
    assert all(torch.equal(bank.kept[name], start[name]) for name in running)


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_changes_no_weight(
    tmp_path: Path, teacher: Tensor, damaged: int
) -> None:
    """Distillation continues from the one before, or starts anew."""
    whole = distilled(tmp_path / "whole", teacher)
    with killed_in_step(Distillation, 6), pytest.raises(KilledError):  # the last one
        distilled(tmp_path / "killed", teacher)
    checkpoints = sorted((tmp_path / "killed").rglob("*.ckpt"))  # NAME.before.ckpt, NAME.ckpt
    assert len(checkpoints) == 2
    for file in checkpoints[-damaged:]:
        file.write_bytes(file.read_bytes()[:-20])
    assert distilled(tmp_path / "killed", teacher).sha256 == whole.sha256


def test_a_killed_distillation_continues_and_ends_at_the_same_weights(
    tmp_path: Path, teacher: Tensor
) -> None:
    whole = distilled(tmp_path / "whole", teacher)
    with killed_in_step(Distillation, 4) as begun:
        with pytest.raises(KilledError):
            distilled(tmp_path / "killed", teacher)
        assert list((tmp_path / "killed").rglob("*.ckpt"))
        continued = distilled(tmp_path / "killed", teacher)
    assert len(begun) == 4 + 4  # two of the first three were in the checkpoint
    assert continued.sha256 == whole.sha256
    assert not list((tmp_path / "killed").rglob("*.ckpt"))


def test_a_student_is_made_once_for_what_determines_it(
    tmp_path: Path, teacher: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = distilled(tmp_path, teacher)
    assert distilled(tmp_path, teacher, temperature=1.0).sha256 != first.sha256
    assert distilled(tmp_path, -teacher).sha256 != first.sha256
    monkeypatch.setattr(students, "_fit", None)
    assert distilled(tmp_path, teacher).sha256 == first.sha256


def test_a_student_of_another_architecture_is_another(tmp_path: Path) -> None:
    """The same weights under another activation learn something else."""
    generator = torch.Generator().manual_seed(0)
    layer = {"1.weight": torch.randn(5, 3 * 8 * 8, generator=generator), "1.bias": torch.zeros(5)}
    expert = Expert(Weights(layer), Head(torch.randn(3, 5, generator=generator), torch.zeros(3)))
    images, teacher = images_without_labels(), torch.randn(64, 3, generator=generator)

    def student(activation: nn.Module, cache: str) -> str:
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5), activation)
        zoo = Zoo(Network(backbone, PREPROCESS, CPU), expert.state, {"task": expert})
        options: Any = {"cache": Cache(tmp_path / cache), "accelerator": "cpu"}
        return student_weights(zoo, "task", images, teacher, settings(), **options).sha256

    first = student(nn.ReLU(), "shared")
    assert student(nn.Tanh(), "shared") == student(nn.Tanh(), "own") != first


def test_batches_hold_no_label(
    tmp_path: Path, teacher: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[UnlabeledBatch] = []
    step = Distillation.training_step

    def recording(self: Distillation, batch: UnlabeledBatch) -> Tensor:
        seen.append(batch)
        return step(self, batch)

    monkeypatch.setattr(Distillation, "training_step", recording)
    distilled(tmp_path, teacher)
    assert len(seen) == 6
    assert all(batch._fields == ("images", "indices") for batch in seen)
