"""TIES-Merging: trim, elect a sign, average those that agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import Rows, add_to_pretrained, stored_rows
from statsmerging.merging.methods.selection import kth_smallest

TIES_SCALES = Grid("scale", (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6))


@dataclass(frozen=True)
class Ties(DataFreeMethod):
    """TIES-Merging (Yadav et al., *TIES-Merging: Resolving Interference When Merging Models*,
    NeurIPS 2023).

    1. Trim: keep the largest entries of every task vector, over all layers together.
    2. Elect: the sign of an entry is that of the sum of the trimmed task vectors.
    3. Merge: the mean of the trimmed entries that have the elected sign, times λ.

    An entry whose trimmed values sum to exactly zero stays pre-trained. All tensors are treated
    alike. One expert at ``density=1, scale=1`` gives that expert.

    Args:
        density: share of entries kept of each task vector; the paper's default keeps 20 %. It
            counts the entries of tensors that some expert changed: frozen ones do not.
        scale: λ; 1 is the paper's value where it cannot be tuned.
    """

    name = "ties"
    title = "TIES"
    tunable = TIES_SCALES

    density: float = parameter(0.2, above=0, at_most=1)
    scale: float = parameter(1.0, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"density": 1.0}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return add_elected(bank, stored_rows(bank), self.density, self.scale)


def add_elected(
    bank: TaskVectorBank, rows: Rows, density: float, scale: float
) -> dict[str, Tensor]:
    """State dict of TIES-Merging of the given task vectors."""
    elected = elected_means(rows, layer_sizes(bank), density)
    return add_to_pretrained(bank, lambda layer: scale * elected(layer))


def elected_means(rows: Rows, sizes: Mapping[str, int], density: float) -> Callable[[str], Tensor]:
    """The three steps of TIES-Merging at λ = 1: layer → n.

    Args:
        rows: layer → K × n.
        sizes: n of every layer.
        density: share of entries kept of each task vector, over all layers together.
    """
    threshold = magnitude_threshold(rows, sizes, density).unsqueeze(1)

    def elected(layer: str) -> Tensor:
        vectors = rows(layer)
        return mean_of_elected(torch.where(vectors.abs() >= threshold, vectors, 0))

    return elected


def magnitude_threshold(rows: Rows, sizes: Mapping[str, int], density: float) -> Tensor:
    """The smallest magnitude among the largest ``density`` share of each task vector, K."""
    total = sum(sizes.values())
    kept = max(1, round(density * total))
    return kth_smallest(lambda: (rows(layer).abs() for layer in sizes), total - kept + 1)


def layer_sizes(bank: TaskVectorBank) -> dict[str, int]:
    """Entries of every merged layer."""
    return {layer: start.numel() for layer, start in bank.pretrained.items()}


def mean_of_elected(vectors: Tensor) -> Tensor:
    """Mean over the rows whose sign is the sign of the column's sum: K × n → n."""
    agrees = vectors.sign() == vectors.sum(dim=0).sign()
    return torch.where(agrees, vectors, 0).sum(dim=0) / agrees.sum(dim=0).clamp_min(1)


def trimmed_bank(bank: TaskVectorBank, density: float) -> TaskVectorBank:
    """The bank after the first two steps of TIES: trimmed, and without entries of other sign.

    Methods that learn coefficients of such task vectors carry ++ in their name (Yang et al.,
    *AdaMerging*, ICLR 2024). It is a second bank of the same size.
    """
    rows = stored_rows(bank)
    threshold = magnitude_threshold(rows, layer_sizes(bank), density).unsqueeze(1)

    def trimmed(layer: str) -> Tensor:
        vectors = rows(layer)
        kept = torch.where(vectors.abs() >= threshold, vectors, 0)
        agrees = kept.sign() == kept.sum(dim=0).sign()
        return torch.where(agrees, kept, 0).to(bank.vectors[layer].dtype)

    vectors = {layer: trimmed(layer) for layer in bank.layers}
    trimmed_vectors = TaskVectorBank(bank.tasks, bank.pretrained, vectors, bank.kept)
    trimmed_vectors.rounding = bank.rounding
    return trimmed_vectors
