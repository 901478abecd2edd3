"""What a learning step gives: coefficients, and how far they move the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from statsmerging.choices import Anchor
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.merging import StatsMergeLearner, TaskVectorBank, layer_statistics
from statsmerging.merging.decomposition import Decomposition
from statsmerging.merging.merged_model import Bank
from statsmerging.merging.spectral import SpectralBank
from statsmerging.runs.results import LayerKind

#: Two matrices, one of them a convolution, and two layers with a side of 1.
SHAPES = {"conv": (4, 3, 2, 2), "fc": (6, 5), "token": (1, 1, 7), "bias": (5,)}
KINDS: dict[LayerKind, tuple[str, str]] = {"matrices": ("conv", "fc"), "vectors": ("token", "bias")}


@pytest.fixture
def bank() -> TaskVectorBank:
    generator = torch.Generator().manual_seed(0)
    first, *others = (
        {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for _ in range(3)
    )
    return TaskVectorBank.from_state_dicts(first, dict(zip(("a", "b"), others, strict=True)))


def learned(bank: Bank, whole: TaskVectorBank, coefficients: Tensor) -> LearnedCoefficients:
    learner = StatsMergeLearner(layer_statistics(whole))
    return LearnedCoefficients(learner, bank, coefficients, gradient_norm=1.0)


def norm(layers: list[Tensor]) -> float:
    return math.sqrt(sum(float(layer.double().square().sum()) for layer in layers))


@pytest.mark.parametrize("anchor", ["pretrained", "none"])
def test_movement_is_the_distance_from_the_start_over_all_layers_of_a_kind(
    bank: TaskVectorBank, anchor: Anchor
) -> None:
    rows = torch.tensor([[0.5, -2.0], [0.25, 0.5], [9.0, -12.0], [1.0, 1.0]])
    state = bank.merge(rows, anchor)
    found = learned(bank, bank, rows).movement(state)
    assert {kind: each.largest_coefficient for kind, each in found.items()} == {
        "matrices": 2.0,
        "vectors": 12.0,
    }
    for kind, names in KINDS.items():
        moved = norm([state[name] - bank.pretrained[name] for name in names])
        expected = moved / norm([bank.pretrained[name] for name in names])
        assert found[kind].relative == pytest.approx(expected, rel=1e-5)


def test_one_coefficient_per_task_is_that_of_both_kinds(bank: TaskVectorBank) -> None:
    """λ = (1, 0) is the first expert: its task vector over θ₀."""
    coefficients = torch.tensor([1.0, 0.0])
    found = learned(bank, bank, coefficients).movement(bank.merge(coefficients))
    for kind, names in KINDS.items():
        moved = norm([bank.vectors[name][0] for name in names])
        expected = moved / norm([bank.pretrained[name] for name in names])
        assert found[kind].relative == pytest.approx(expected, rel=1e-5)
        assert found[kind].largest_coefficient == 1.0


def test_of_singular_directions_only_those_within_the_rank_count(bank: TaskVectorBank) -> None:
    """The first expert leaves ``fc`` as it is: its directions there have no effect."""
    bank.vectors["fc"][0] = 0
    spectral = SpectralBank.from_bank(bank, Decomposition(rank=2, split_attention=True))
    sizes = list(spectral.sizes.values())
    fc, token = sum(sizes[:1]), sum(sizes[:2])
    coefficients = torch.ones(sum(spectral.sizes.values()))
    coefficients[fc] = 70.0
    coefficients[fc + 2] = -4.0
    coefficients[token] = 3.0
    found = learned(spectral, bank, coefficients).movement(spectral.merge(coefficients))
    assert (found["matrices"].largest_coefficient, found["vectors"].largest_coefficient) == (4, 3)


def test_a_start_of_zero_has_no_relative_movement() -> None:
    start = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)}
    tuned = {"weight": torch.eye(2), "bias": torch.ones(2)}
    bank = TaskVectorBank.from_state_dicts(start, {"a": tuned})
    coefficients = torch.tensor([[0.5], [0.5]])
    found = learned(bank, bank, coefficients).movement(bank.merge(coefficients))
    assert found["vectors"].relative is None
    assert found["matrices"].relative == pytest.approx(0.5 * math.sqrt(2) / 2)


def test_a_kind_without_layers_is_left_out() -> None:
    bank = TaskVectorBank.from_state_dicts({"w": torch.ones(2, 2)}, {"a": {"w": torch.eye(2)}})
    coefficients = torch.tensor([[1.0]])
    found = learned(bank, bank, coefficients).movement(bank.merge(coefficients))
    assert list(found) == ["matrices"]
