"""The published code's protocol: what it uses, and that it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from statsmerging.choices import Trains
from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.learning.released_code import (
    BATCH,
    BestOnTest,
    ReleasedCode,
    ReleasedCodeLearner,
    stacked_statistics,
)
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.learning.trainer import create_trainer
from statsmerging.merging import MergedModel, TaskVectorBank
from statsmerging.zoo.heads import Head
from tests.app.test_configs import composed
from tests.conftest import JobRunner
from tests.small_models import TinyBackbone

METHOD = "method=[task_arithmetic,released_code]"
PREPROCESS = Preprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def noise(size: int, generator: torch.Generator) -> ImageSplit:
    """Images of noise, with labels that have nothing to do with them."""
    pixels = torch.randint(256, (size, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(4, (size,), generator=generator)
    return ImageSplit(pixels, labels, torch.zeros(size, 16, dtype=torch.uint8), "noise")


def small_module(
    bank: TaskVectorBank,
    generator: torch.Generator,
    trains: Trains = "coefficients_and_heads",
) -> ReleasedCode:
    """The protocol's module on a small backbone, with heads for four classes."""
    heads = {
        task: Head(torch.randn(4, 5, generator=generator), torch.zeros(4)) for task in bank.tasks
    }
    settings = TrainerSettings(
        steps=2,
        images_per_task=4,
        learning_rate=0.01,
        weight_decay=0.0,
        accumulate="joint",
        steps_per_epoch=2,
        seed=0,
    )
    return ReleasedCode(
        ReleasedCodeLearner(bank, hidden=8, generator=generator),
        MergedModel(TinyBackbone(), bank),
        heads,
        {task: torch.eye(4) for task in bank.tasks},
        PREPROCESS.normalise,
        LabelsSettings(kind="ground_truth"),
        "teacher_labels",
        settings,
        period=4,
        trains=trains,
    )


def test_statistics_of_stacked_task_vectors_equal_numpy(bank: TaskVectorBank) -> None:
    for layer, found in zip(bank.layers, stacked_statistics(bank), strict=True):
        matrix = bank.vectors[layer].double().numpy()
        expected = [
            matrix.mean(),
            matrix.std(ddof=1),
            matrix.var(ddof=1),
            np.linalg.norm(matrix),
            np.linalg.svd(matrix, compute_uv=False)[0],
            (np.linalg.svd(matrix, compute_uv=False) > 1e-3).sum(),
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_coefficients_of_a_layer_sum_to_one(bank: TaskVectorBank) -> None:
    learner = ReleasedCodeLearner(bank, hidden=8, generator=torch.Generator().manual_seed(0))
    coefficients = learner()
    assert coefficients.shape == (len(bank.layers), len(bank.tasks))
    torch.testing.assert_close(coefficients.sum(dim=1), torch.ones(len(bank.layers)))
    coefficients[0, 0].backward()
    assert learner.weights[0].grad is not None


def test_it_starts_and_is_optimised_as_published(bank: TaskVectorBank) -> None:
    """Xavier's weights, zero biases, a weight decay of 1e-4 on all, a rate that moves each step."""
    module = small_module(bank, torch.Generator().manual_seed(0))
    assert isinstance(module.learner, ReleasedCodeLearner)
    for weight, bias in zip(module.learner.weights, module.learner.biases, strict=True):
        bound = (6 / (weight.shape[1] + weight.shape[2])) ** 0.5
        assert 0.8 * bound < weight.abs().max() <= bound
        assert not bias.any()
    optimisation: Any = module.configure_optimizers()
    (group,) = optimisation["optimizer"].param_groups
    assert group["weight_decay"] == 1e-4
    assert len(group["params"]) == len(list(module.learner.parameters())) + 2 * len(bank.tasks)
    assert optimisation["lr_scheduler"]["interval"] == "step"


@pytest.mark.parametrize(
    ("trains", "learner_moves", "heads_move"),
    [
        ("coefficients", True, False),
        ("coefficients_and_heads", True, True),
        ("heads", False, True),
    ],
)
def test_what_is_not_trained_stays_as_it_starts(
    bank: TaskVectorBank, trains: Trains, learner_moves: bool, heads_move: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    module = small_module(bank, generator, trains)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images = {task: noise(4, generator).images for task in bank.tasks}
    data = UnlabeledDataModule(images, images_per_task=4, steps_per_epoch=2, seed=0)
    create_trainer(accelerator="cpu", epochs=1, description="").fit(module, data)
    moved = {
        name.split(".")[0]
        for name, value in module.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {
        name for name, moves in (("learner", learner_moves), ("heads", heads_move)) if moves
    }
    assert bool(module.gradient_norm > 0) == learner_moves


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("released_code", True),
        ("released_code_frozen_heads", False),
        ("released_code_heads_alone", True),
    ],
)
def test_only_trained_heads_are_stamped(method: str, trained: bool) -> None:
    stamps = composed(f"method=[{method}]").stamps
    assert ("not label-free: trained the classification heads" in stamps) == trained
    assert "not label-free: learned from ground-truth labels" in stamps


def test_frozen_heads_and_coefficients_as_drawn_reach_the_table(run_job: JobRunner) -> None:
    names = ("released_code_frozen_heads", "released_code_heads_alone")
    results = run_job(f"method=[{','.join(names)}]", "learning.split=test")
    rows = [results["methods"][name] for name in names]
    assert [row["parameters"]["trains"] for row in rows] == ["coefficients", "heads"]
    assert [row["needs"] for row in rows] == ["labels", "labels"]
    assert not any("gradient" in warning for warning in results["warnings"])


def test_a_run_is_stamped_and_repeats_itself(run_job: JobRunner, tmp_path: Path) -> None:
    first = run_job(METHOD, "learning.split=test")
    assert [stamp.removeprefix("not label-free: ") for stamp in first["stamps"]] == [
        "learned from test images",
        "learned from ground-truth labels",
        "trained the classification heads",
        "chose the epoch by test accuracy",
    ]
    assert first["methods"]["released_code"]["needs"] == "labels"
    again = run_job(METHOD, "learning.split=test", directory=tmp_path / "again")
    assert again["methods"] == first["methods"]


@pytest.mark.parametrize(
    ("override", "needed"),
    [
        ("trainer.devices=2", "trainer.devices=1"),
        ("trainer.accumulate=per_task", "trainer.accumulate=joint"),
    ],
)
def test_a_trainer_that_would_leave_something_out_is_refused(
    run_job: JobRunner, override: str, needed: str
) -> None:
    with pytest.raises(UserError, match=f"method released_code needs {needed}"):
        run_job("method=[released_code]", override)


@pytest.mark.parametrize(("accuracies", "best"), [((0.9, 0.2, 0.4), 0), ((0.2, 0.2, 0.9), 2)])
def test_the_best_epoch_on_test_is_kept(
    run_job: JobRunner, monkeypatch: pytest.MonkeyPatch, accuracies: tuple[float, ...], best: int
) -> None:
    """Three epochs of two steps; the learning rate is 0 in every second step."""
    seen: list[Tensor] = []
    merged: list[Tensor] = []

    def accuracy(self: BestOnTest, module: object, coefficients: Tensor) -> float:
        del self, module
        seen.append(coefficients.detach().clone())
        return accuracies[len(seen) - 1]

    original = TaskVectorBank.merge

    def recording(self, coefficients, *others):  # type: ignore[no-untyped-def]
        merged.append(coefficients)
        return original(self, coefficients, *others)

    monkeypatch.setattr(BestOnTest, "_accuracy", accuracy)
    monkeypatch.setattr(TaskVectorBank, "merge", recording)
    run_job("method=[released_code]")
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(merged[-1], seen[best])


def test_accuracy_counts_every_image_and_averages_over_tasks(bank: TaskVectorBank) -> None:
    """The tasks' test images fill whole batches, and parts of one."""
    generator = torch.Generator().manual_seed(0)
    sizes = dict(zip(bank.tasks, (2 * BATCH + 7, BATCH, 5), strict=True))
    images = {task: noise(size, generator) for task, size in sizes.items()}
    module = small_module(bank, generator)
    best = BestOnTest(images)
    best.on_train_epoch_end(create_trainer(accelerator="cpu", epochs=1, description=""), module)
    with torch.no_grad():
        state = bank.merge(module.learner())
        shares = []
        for head, split in zip(module.heads, images.values(), strict=True):
            inputs = PREPROCESS.normalise(split.images[:])
            classes = head(functional_call(TinyBackbone().eval(), state, (inputs,))).argmax(dim=1)
            shares.append(float((classes == split.labels).double().mean()))
    assert best.state_dict()["accuracy"] == pytest.approx(sum(shares) / 3)
    assert len(set(shares)) == 3


def test_the_epoch_is_chosen_on_all_test_images_of_all_tasks(run_job: JobRunner) -> None:
    sizes: list[int] = []
    original = BestOnTest.__init__

    def recording(self: BestOnTest, images: dict[str, ImageSplit]) -> None:
        sizes.extend(len(split) for split in images.values())
        original(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BestOnTest, "__init__", recording)
        results = run_job("method=[released_code]")
    assert sizes == list(results["methods"]["released_code"]["n"].values())
