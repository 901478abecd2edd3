"""EMR-Merging: one unified task vector, and for each task a mask and a number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import PerTaskMethod, TaskModels
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows


@dataclass(frozen=True)
class Emr(PerTaskMethod):
    """EMR-Merging (Huang et al., *EMR-Merging: Tuning-Free High-Performance Model Merging*,
    NeurIPS 2024).

    1. Elect: the unified task vector u has in each entry the sign of Σ_k T_k, and the largest
       magnitude among the task vectors of that sign.
    2. Mask: M_k keeps the entries of u that have the sign of T_k.
    3. Rescale: λ_k = Σ|T_k| / Σ|M_k u|, over all layers together.

    Task k's model is θ₀ + λ_k M_k u. As in the paper, λ_k is a ratio of sums over all entries;
    the released code for vision transformers adds up means over tensors instead, in which a bias
    counts as much as a matrix. There is nothing to tune. One expert gives itself, identical
    experts give that expert.

    Beside the shared model a task costs one bit for each weight and one number.
    """

    name = "emr"
    title = "EMR-Merging"

    @torch.no_grad()
    def merge(self, bank: TaskVectorBank) -> TaskModels:
        rows = stored_rows(bank)
        scales = rescalers(bank).tolist()

        def build(task: str) -> dict[str, Tensor]:
            row = bank.tasks.index(task)

            def update(layer: str) -> Tensor:
                vectors = rows(layer)
                change: Tensor = scales[row] * masked(unified(vectors), vectors[row])
                return change

            return add_to_pretrained(bank, update)

        return TaskModels(bank.tasks, build)


def unified(vectors: Tensor) -> Tensor:
    """Task vectors K × n → elected task vector n."""
    signs = vectors.sum(dim=0).sign()
    elected: Tensor = signs * (signs * vectors).amax(dim=0)
    return elected


def masked(elected: Tensor, vector: Tensor) -> Tensor:
    """The entries of the elected task vector that point where the task's own one does, n."""
    return torch.where(elected * vector > 0, elected, 0)


def rescalers(bank: TaskVectorBank) -> Tensor:
    """λ_k, K. A task whose mask is empty has a model without update, whatever its λ: 0."""
    rows = stored_rows(bank)
    own = torch.zeros(len(bank.tasks), dtype=torch.float64, device=bank.device)
    shared = torch.zeros_like(own)
    for layer in bank.layers:
        vectors = rows(layer)
        own += vectors.abs().sum(dim=1, dtype=torch.float64)
        shared += masked(unified(vectors), vectors).abs().sum(dim=1, dtype=torch.float64)
    return torch.where(shared > 0, own / shared, 0).float()
