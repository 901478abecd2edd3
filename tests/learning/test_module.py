"""The learning step: what is trained, what stays, and equal gradients whatever the memory mode."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from statsmerging.choices import Objective
from statsmerging.data.pictures import Preprocess
from statsmerging.learning.data_module import UnlabeledBatch, UnlabeledDataModule
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.learning.trainer import create_trainer
from statsmerging.merging import (
    MergedModel,
    MergingError,
    StatsMergeLearner,
    TaskVectorBank,
    layer_statistics,
)
from statsmerging.zoo.heads import Head
from tests.small_models import TinyBackbone, random_experts

PREPROCESS = Preprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def make_module(
    bank: TaskVectorBank,
    accumulate: Literal["joint", "per_task"] = "joint",
    rate: float = 0.01,
    backbone: nn.Module | None = None,
    objective: Objective = "teacher_labels",
) -> StatsMerging:
    generator = torch.Generator().manual_seed(0)
    heads = {
        task: Head(torch.randn(4, 5, generator=generator), torch.zeros(4)) for task in bank.tasks
    }
    scores = {task: torch.randn(10, 4, generator=generator) for task in bank.tasks}
    settings = TrainerSettings(
        steps=4,
        images_per_task=4,
        learning_rate=rate,
        weight_decay=0.0,
        accumulate=accumulate,
        steps_per_epoch=2,
        seed=0,
    )
    learner = StatsMergeLearner(layer_statistics(bank), generator=generator)
    return StatsMerging(
        learner,
        MergedModel(backbone or TinyBackbone(), bank),
        heads,
        scores,
        PREPROCESS.normalise,
        LabelsSettings(),
        objective,
        settings,
    )


def make_data(bank: TaskVectorBank) -> UnlabeledDataModule:
    generator = torch.Generator().manual_seed(1)
    images = {
        task: torch.randint(0, 256, (10, 3, 8, 8), generator=generator, dtype=torch.uint8)
        for task in bank.tasks
    }
    return UnlabeledDataModule(images, images_per_task=4, steps_per_epoch=2, seed=0)


def gradients(module: StatsMerging, batch: UnlabeledBatch) -> list[Tensor]:
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.zero_grad()
    module.training_step(batch).backward()
    return [
        weight.grad.clone() for weight in module.learner.parameters() if weight.grad is not None
    ]


def test_only_the_learner_gets_a_gradient(bank: TaskVectorBank) -> None:
    module = make_module(bank)
    batch = next(iter(make_data(bank).train_dataloader()))
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients(module, batch))
    frozen = [w for name, w in module.named_parameters() if not name.startswith("learner.")]
    assert frozen
    assert all(not weight.requires_grad and weight.grad is None for weight in frozen)


def test_task_by_task_accumulation_gives_the_same_loss_and_gradient(bank: TaskVectorBank) -> None:
    batch = next(iter(make_data(bank).train_dataloader()))
    joint, per_task = make_module(bank), make_module(bank, "per_task")
    for a, b in zip(gradients(joint, batch), gradients(per_task, batch), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(joint.training_step(batch), per_task.training_step(batch))


@pytest.mark.parametrize("accumulate", ["joint", "per_task"])
def test_a_tensor_that_the_forward_pass_ignores_is_no_obstacle(
    accumulate: Literal["joint", "per_task"],
) -> None:
    backbone = TinyBackbone()
    backbone.register_parameter("unused", nn.Parameter(torch.ones(3)))
    start = {name: value.clone() for name, value in backbone.state_dict().items()}
    bank = TaskVectorBank.from_state_dicts(start, random_experts(start, ("mnist", "svhn")))
    assert "unused" in bank.layers
    module = make_module(bank, accumulate, backbone=backbone)
    batch = next(iter(make_data(bank).train_dataloader()))
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients(module, batch))


@pytest.mark.parametrize("accumulate", ["joint", "per_task"])
def test_fit_changes_the_learner_and_nothing_else(
    bank: TaskVectorBank, accumulate: Literal["joint", "per_task"]
) -> None:
    module = make_module(bank, accumulate)
    learned = {name for name, _ in module.learner.named_parameters()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    vectors = {name: rows.clone() for name, rows in bank.vectors.items()}
    trainer = create_trainer(accelerator="cpu", epochs=2, description="test")
    trainer.fit(module, make_data(bank))
    for name, value in module.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved == (name.removeprefix("learner.") in learned), name
    for name, rows in vectors.items():
        assert torch.equal(bank.vectors[name], rows)


def test_checkpoints_hold_the_learner_alone(bank: TaskVectorBank) -> None:
    checkpoint = {"state_dict": make_module(bank).state_dict()}
    make_module(bank).on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"]
    assert all(name.startswith("learner.") for name in checkpoint["state_dict"])


def test_the_last_gradient_is_known_after_a_run_that_was_killed_at_its_end(
    bank: TaskVectorBank, tmp_path: Path
) -> None:
    first, again = make_module(bank), make_module(bank)
    trainer = create_trainer(accelerator="cpu", epochs=2, description="test")
    trainer.fit(first, make_data(bank))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = create_trainer(accelerator="cpu", epochs=2, description="test")
    resumed.fit(again, make_data(bank), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert float(first.gradient_norm) > 0
    assert float(again.gradient_norm) == float(first.gradient_norm)


def test_a_misspelt_objective_names_the_valid_ones(bank: TaskVectorBank) -> None:
    with pytest.raises(MergingError, match="objective=entropie: choose one of teacher_labels, ent"):
        make_module(bank, objective="entropie")  # type: ignore[arg-type]
