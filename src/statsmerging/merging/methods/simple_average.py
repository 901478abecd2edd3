"""Simple average of the experts' weights (Wortsman et al., *Model soups*, ICML 2022)."""

import torch
from torch import Tensor

from statsmerging.merging.task_vectors import TaskVectorBank


def simple_average(bank: TaskVectorBank) -> dict[str, Tensor]:
    """State dict of (1/K) Σ_k θ_k. Needs no data."""
    tasks = len(bank.tasks)
    return bank.merge(torch.full((tasks,), 1 / tasks, device=bank.device))
