"""Iso-C: the sum of the task matrices with a flat spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod
from statsmerging.merging.methods.layers import merge_matrices, thin_svd
from statsmerging.merging.methods.parameters import Grid, parameter

ISOTROPIC_SCALES = Grid("scale", (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8))


@dataclass(frozen=True)
class IsoC(DataFreeMethod):
    """Iso-C (Marczak et al., *No Task Left Behind: Isotropic Model Merging with Common and
    Task-Specific Subspaces*, ICML 2025).

    All singular values of the summed task matrices are replaced by their mean:
    Σ_k T_k = U S Vᵀ gives Δ = mean(S) U Vᵀ. All but 2-D tensors are averaged. The spectrum changes
    even with one expert, so Iso-C does not return it. Directions beyond the rank of the sum, as
    LoRA experts leave them, stay empty and do not count in the mean; the released code fills them
    with directions in which no expert moved.

    Args:
        scale: factor on the merged update; the paper tunes it, 1 leaves it out.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest; the released code averages them.
    """

    name = "iso_c"
    title = "Iso-C"
    tunable = ISOTROPIC_SCALES

    scale: float = parameter(1.0, at_least=0)
    flatten_convolutions: bool = parameter(False)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return merge_matrices(
            bank, flatten_spectrum, self.scale, flatten_convolutions=self.flatten_convolutions
        )


def flatten_spectrum(matrices: Tensor, noise: Tensor) -> Tensor:
    """Task matrices K × m × n and their noise levels K → merged update m × n."""
    left, values, right = triples_of_sum(matrices, noise)
    return values.mean() * (left @ right) if len(values) else torch.zeros_like(matrices[0])


def triples_of_sum(matrices: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular triples of Σ_k T_k up to its rank: m × r, r, r × n."""
    left, values, right = thin_svd(matrices.sum(dim=0))
    rank = int((values > noise.norm()).sum())  # the experts' errors are independent
    return left[:, :rank], values[:rank], right[:rank]
