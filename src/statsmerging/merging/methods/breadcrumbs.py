"""Model Breadcrumbs: task arithmetic without the outliers and the negligible entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows


@dataclass(frozen=True)
class Breadcrumbs(DataFreeMethod):
    """Model Breadcrumbs (Davari & Belilovsky, *Model Breadcrumbs: Scaling Multi-Task Model
    Merging with Sparse Masks*, ECCV 2024).

    In every tensor of every task vector the largest magnitudes are removed, and of the rest all
    but the largest; then θ₀ + λ Σ_k T_k. Shares are of the whole tensor, as in the paper (the
    released code takes them along the last dimension). All tensors are treated alike. One expert
    comes back at ``density=1, outliers=0, scale=1``.

    Args:
        density: share of a tensor's entries that stay, at least one entry.
        outliers: share of its largest entries that are removed first.
        scale: λ. The three defaults are the authors' first guess in the released search.
    """

    name = "breadcrumbs"
    title = "Model Breadcrumbs"
    tunable = Grid("scale", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0))

    density: float = parameter(0.15, above=0, at_most=1)
    outliers: float = parameter(0.006, at_least=0, below=1)
    scale: float = parameter(0.2, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"density": 1.0, "outliers": 0.0, "scale": 1 / copies}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        rows = stored_rows(bank)

        def update(layer: str) -> Tensor:
            return self.scale * middle(rows(layer), self.density, self.outliers).sum(dim=0)

        return add_to_pretrained(bank, update)


def middle(vectors: Tensor, density: float, outliers: float) -> Tensor:
    """K × n task vectors with all but the entries of middling magnitude set to zero."""
    magnitudes, entries = vectors.abs(), vectors.shape[1]
    highest = max(1, entries - round(outliers * entries))
    lowest = max(1, highest - max(1, round(density * entries)) + 1)
    above = magnitudes.kthvalue(highest, dim=1, keepdim=True).values
    below = magnitudes.kthvalue(lowest, dim=1, keepdim=True).values
    return torch.where((magnitudes >= below) & (magnitudes <= above), vectors, 0)
