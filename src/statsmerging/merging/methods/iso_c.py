"""Iso-C: the sum of the task matrices with a flat spectrum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from statsmerging.merging.methods.base import DataFreeMethod
from statsmerging.merging.methods.layers import merge_matrices, thin_svd
from statsmerging.merging.methods.parameters import Grid, parameter
from statsmerging.merging.task_vectors import TaskVectorBank

ISOTROPIC_SCALES = Grid("scale", (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8))


@dataclass(frozen=True)
class IsoC(DataFreeMethod):
    """Iso-C (Marczak et al., *No Task Left Behind: Isotropic Model Merging with Common and
    Task-Specific Subspaces*, ICML 2025).

    All singular values of the summed task matrices are replaced by their mean:
    Σ_k T_k = U S Vᵀ gives Δ = mean(S) U Vᵀ. Vectors are averaged. The spectrum changes even with
    one expert, so Iso-C does not return it.

    Args:
        scale: factor on the merged update; the paper tunes it, 1 leaves it out.
    """

    name = "iso_c"
    title = "Iso-C"
    tunable = ISOTROPIC_SCALES

    scale: float = parameter(1.0, at_least=0)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return merge_matrices(bank, flatten_spectrum, self.scale)


def flatten_spectrum(matrices: Tensor) -> Tensor:
    """Task matrices K × m × n → merged update m × n."""
    left, values, right = thin_svd(matrices.sum(dim=0))
    merged: Tensor = values.mean() * (left @ right)
    return merged
