"""MetaGPT: one coefficient per expert in closed form, from the norms of the task vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod


@dataclass(frozen=True)
class MetaGpt(DataFreeMethod):
    """MetaGPT (Zhou et al., *MetaGPT: Merging Large Language Models Using Model Exclusive Task
    Arithmetic*, EMNLP 2024).

    θ₀ + Σ_k λ_k T_k with λ_k = ‖T_k‖² / Σ_j ‖T_j‖² over all weights: what minimises the experts'
    mean loss where networks are linear around θ₀ and task vectors orthogonal to each other. An
    expert that moved further gets more. Nothing is tuned. Here it stands for what statistics
    alone, without learning, say about coefficients.
    """

    name = "meta_gpt"
    title = "MetaGPT"

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        # Squares of 10⁸ entries are summed in float64.
        squares = torch.stack(
            [bank.vectors[layer].double().square().sum(dim=1) for layer in bank.layers]
        ).sum(dim=0)
        return bank.merge((squares / squares.sum()).float())
