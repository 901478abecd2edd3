"""Small models with every kind of tensor: matrix, convolution, vector, token, counter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import Evidence
from statsmerging.merging.methods.checks import (
    TASKS,
    small_evidence,
    small_experts,
    small_pretrained,
)


@pytest.fixture
def pretrained() -> dict[str, Tensor]:
    return small_pretrained()


@pytest.fixture
def experts() -> dict[str, dict[str, Tensor]]:
    return small_experts()


@pytest.fixture
def bank(pretrained: dict[str, Tensor], experts: dict[str, dict[str, Tensor]]) -> TaskVectorBank:
    return TaskVectorBank.from_state_dicts(pretrained, experts)


@pytest.fixture
def fishers() -> Evidence:
    """Diagonals of all tensors but the token."""
    return small_evidence("gradients")


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
