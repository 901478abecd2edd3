"""Small models with every kind of tensor: matrix, convolution, vector, token, counter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import Evidence

TASKS = ("mnist", "svhn", "cars")
SHAPES = {"linear": (7, 12), "convolution": (6, 3, 2, 2), "bias": (6,), "token": (1, 5, 4)}


def random_state(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def pretrained() -> dict[str, Tensor]:
    return {**random_state(0), "counter": torch.tensor(3)}


@pytest.fixture
def experts(pretrained: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Experts whose task vectors are Gaussian, with correlations and different sizes."""
    shared = random_state(1, 0.05)
    return {
        task: {
            "counter": pretrained["counter"] + 1,
            **{
                name: pretrained[name] + shared[name] + change
                for name, change in random_state(2 + k, 0.05 * (1 + k)).items()
            },
        }
        for k, task in enumerate(TASKS)
    }


@pytest.fixture
def bank(pretrained: dict[str, Tensor], experts: dict[str, dict[str, Tensor]]) -> TaskVectorBank:
    return TaskVectorBank.from_state_dicts(pretrained, experts)


@pytest.fixture
def fishers() -> Evidence:
    """Diagonals of all tensors but the token."""
    return {
        task: {
            name: values.square()
            for name, values in random_state(20 + k, 10.0**-k).items()
            if name != "token"
        }
        for k, task in enumerate(TASKS)
    }


@pytest.fixture
def inputs() -> Evidence:
    """Inputs of the two matrices, N × n."""
    generator = torch.Generator().manual_seed(30)
    return {
        task: {name: torch.randn(40, 12, generator=generator) for name in ("linear", "convolution")}
        for task in TASKS
    }


@pytest.fixture
def grams(inputs: Evidence) -> Evidence:
    return {
        task: {name: x.mT @ x / len(x) for name, x in of_task.items()}
        for task, of_task in inputs.items()
    }
