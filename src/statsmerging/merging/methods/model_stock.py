"""Model Stock: how far to go from θ₀ to the average, from the angle between the experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows


@dataclass(frozen=True)
class ModelStock(DataFreeMethod):
    """Model Stock (Jang et al., *Model Stock: All we need is just a few fine-tuned models*,
    ECCV 2024).

    For each tensor, with the mean cosine c between the task vectors of two experts,
    t = K c / (1 + (K − 1) c) and θ = t · mean(θ_k) + (1 − t) θ₀. Experts that agree give their
    average, orthogonal ones give θ₀; one expert gives itself. The formula is derived for c > 0; a
    negative mean cosine counts as 0. Nothing is tuned.
    """

    name = "model_stock"
    title = "Model Stock"

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        rows = stored_rows(bank)

        def update(layer: str) -> Tensor:
            vectors = rows(layer)
            return interpolation_ratio(vectors) * vectors.mean(dim=0)

        return add_to_pretrained(bank, update)


def interpolation_ratio(vectors: Tensor) -> Tensor:
    """t for K × n task vectors of one tensor."""
    tasks = len(vectors)
    if tasks == 1:
        return vectors.new_ones(())
    norms = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # An unchanged tensor has cosine 0 with all others.
    directions = vectors / norms.where(norms > 0, 1)
    cosines = directions @ directions.mT
    pairs = tasks * (tasks - 1)
    cosine = ((cosines.sum() - cosines.diagonal().sum()) / pairs).clamp_min(0)
    ratio: Tensor = tasks * cosine / (1 + (tasks - 1) * cosine)
    return ratio
