"""Simple average of the experts' weights (Wortsman et al., *Model soups*, ICML 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod


@dataclass(frozen=True)
class SimpleAverage(DataFreeMethod):
    """The mean of the experts, (1/K) Σ_k θ_k.

    Wortsman et al., *Model soups: averaging weights of multiple fine-tuned models improves
    accuracy without increasing inference time*, ICML 2022.
    """

    name = "simple_average"
    title = "Simple average"

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        tasks = len(bank.tasks)
        return bank.merge(torch.full((tasks,), 1 / tasks, device=bank.device))
