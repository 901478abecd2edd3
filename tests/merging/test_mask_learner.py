"""Binary masks of directions against the formula, and what starts where."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from statsmerging.merging import (
    Decomposition,
    MergedModel,
    SpectralBank,
    TaskVectorBank,
    direction_statistics,
)
from statsmerging.merging.mask_learner import MaskLearner
from statsmerging.merging.methods import task_arithmetic
from tests.small_models import TinyBackbone

FULL = Decomposition(rank=1000, orthonormal=False)


@pytest.fixture
def spectral(bank: TaskVectorBank) -> SpectralBank:
    return SpectralBank.from_bank(bank, FULL)


@pytest.fixture
def learner(spectral: SpectralBank) -> MaskLearner:
    return MaskLearner(direction_statistics(spectral))


def test_the_start_is_task_arithmetic_for_matrices_and_vectors(
    bank: TaskVectorBank, spectral: SpectralBank, learner: MaskLearner
) -> None:
    merged = spectral.merge(learner())
    for name, expected in task_arithmetic(bank, scale=0.3).items():
        torch.testing.assert_close(merged[name], expected, rtol=0, atol=1e-5)


def randomised(learner: MaskLearner) -> tuple[Tensor, Tensor]:
    """Random numbers in masks and table; returned in float64."""
    for number, weight in enumerate((learner.masks, learner.table)):
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(number))
    return learner.masks.detach().double(), learner.table.detach().double()


def test_values_and_gradients_follow_the_formula(
    spectral: SpectralBank, learner: MaskLearner
) -> None:
    """λ_i = w [m_i > 0]; its derivatives are [m_i > 0] in w, and w σ'(m_i / 10) / 10 in m_i."""
    masks, table = randomised(learner)
    found = learner()
    upstream = torch.randn(len(found), generator=torch.Generator().manual_seed(2))
    (found * upstream).sum().backward()
    statistics, tasks = direction_statistics(spectral), len(spectral.tasks)
    of_table = torch.zeros_like(table)
    for i, value in enumerate(found.tolist()):
        place = int(statistics.layer[i]) * tasks + int(statistics.task[i])
        weight, kept = 0.3 + float(table[place]), float(masks[i]) > 0
        if statistics.whole[i]:
            expected, slope, kept = weight, 0.0, True
        else:
            odds = math.exp(-float(masks[i]) / 10)
            expected, slope = weight * kept, weight * odds / (1 + odds) ** 2 / 10
        assert value == pytest.approx(expected, abs=1e-6)
        assert learner.masks.grad is not None
        found_slope = float(learner.masks.grad[i])
        assert found_slope == pytest.approx(float(upstream[i]) * slope, rel=1e-4, abs=1e-8)
        of_table[place] += kept * float(upstream[i])
    assert learner.table.grad is not None
    torch.testing.assert_close(learner.table.grad.double(), of_table, rtol=1e-4, atol=1e-5)


def test_a_direction_that_is_left_out_can_come_back(learner: MaskLearner) -> None:
    direction = int((~learner.whole).nonzero()[0])
    with torch.no_grad():
        learner.masks[direction] = -0.1
    assert learner()[direction] == 0
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (-learner()[direction]).backward()
        optimizer.step()
    assert learner()[direction] > 0.2


def test_it_learns_through_a_merged_model(spectral: SpectralBank, learner: MaskLearner) -> None:
    student = MergedModel(TinyBackbone(), spectral)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    student(images, learner()).square().sum().backward()
    for weight in learner.parameters():
        assert weight.grad is not None
        assert weight.grad.any()
    assert not learner.predicts
