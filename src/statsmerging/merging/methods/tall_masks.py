"""TALL masks: the sum of the task vectors, and for each task the entries that suit it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import Grid, PerTaskMethod, TaskModels, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows


@dataclass(frozen=True)
class TallMasks(PerTaskMethod):
    """TALL masks (Wang et al., *Localizing Task Information for Improved Model Merging and
    Compression*, ICML 2024), on task arithmetic.

    With the sum T = Σ_k T_k, task k's model is θ₀ + M_k T, where the mask M_k keeps the entries
    with |T_k| > λ |T − T_k|. The authors choose λ for each task by validation; here it is one for
    all tasks. One expert gives itself. Consensus merging makes one static model of the same masks.

    Beside the shared model a task costs one bit for each weight.

    Args:
        mask_strictness: λ; the authors choose from 0.2, 0.3 … 0.6, here it is the middle.
    """

    name = "tall_masks"
    title = "TALL masks"
    tunable = Grid("mask_strictness", (0.2, 0.3, 0.4, 0.5, 0.6))

    mask_strictness: float = parameter(0.4, at_least=0)

    @torch.no_grad()
    def merge(self, bank: TaskVectorBank) -> TaskModels:
        rows = stored_rows(bank)

        def build(task: str) -> dict[str, Tensor]:
            row = bank.tasks.index(task)

            def update(layer: str) -> Tensor:
                vectors = rows(layer)
                total = vectors.sum(dim=0)
                return torch.where(tall_mask(vectors[row], total, self.mask_strictness), total, 0)

            return add_to_pretrained(bank, update)

        return TaskModels(bank.tasks, build)


def tall_mask(vectors: Tensor, total: Tensor, strictness: float) -> Tensor:
    """Where the sum of all task vectors stays close to one of them, in the shape of ``vectors``.

    Args:
        vectors: n, or K × n for K masks.
        total: Σ_k T_k, n.
        strictness: λ.
    """
    return vectors.abs() > strictness * (total - vectors).abs()
