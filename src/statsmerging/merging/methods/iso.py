"""Iso-C and Iso-CTS: a flat spectrum, over all directions or over common and task-specific ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.singular_vectors import leading_triples, orthogonalised, thin_svd

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


@dataclass(frozen=True)
class IsoCts(DataFreeMethod):
    """Iso-CTS (Marczak et al., *No Task Left Behind: Isotropic Model Merging with Common and
    Task-Specific Subspaces*, ICML 2025).

    The leading singular triples of Σ_k T_k span the common subspace U. Its trailing ones make
    room for the leading triples of each task's T_k − U Uᵀ T_k, equally many for each task. Left
    and right singular vectors are then made orthonormal as in TSV-M and get the mean of all
    these singular values. All but 2-D tensors are averaged. One expert does not come back, and
    directions beyond the rank of the sum or of a task stay empty, as in Iso-C.

    Args:
        common_share: share of the min(m, n) directions that are common, before the rest is
            rounded to a multiple of K; 0.8 in the paper.
        scale: factor on the merged update; the paper tunes it, 1 leaves it out.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest; the released code averages them.
    """

    name = "iso_cts"
    title = "Iso-CTS"
    tunable = ISOTROPIC_SCALES

    common_share: float = parameter(0.8, at_least=0, at_most=1)
    scale: float = parameter(1.0, at_least=0)
    flatten_convolutions: bool = parameter(False)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return merge_matrices(
            bank,
            lambda matrices, noise: merge_subspaces(matrices, noise, self.common_share),
            self.scale,
            flatten_convolutions=self.flatten_convolutions,
        )


def merge_subspaces(matrices: Tensor, noise: Tensor, common_share: float) -> Tensor:
    """Task matrices K × m × n and their noise levels K → merged update m × n."""
    tasks, directions = len(matrices), min(matrices.shape[1:])
    per_task = round((directions - int(common_share * directions)) / tasks)
    per_task = min(per_task, directions // tasks)
    common = directions - tasks * per_task

    left, values, right = triples_of_sum(matrices, noise)
    left, values, right = left[:, :common], values[:common], right[:common]
    lefts, spectra, rights = [left], [values], [right]
    if per_task:
        specific = leading_triples(matrices - left @ (left.mT @ matrices), per_task, noise)
        lefts += [*specific[0]]
        spectra += [*specific[1]]
        rights += [*specific[2]]
    spectrum = torch.cat(spectra)
    present = spectrum > 0
    if not present.any():
        return torch.zeros_like(matrices[0])
    return spectrum[present].mean() * (
        orthogonalised(torch.cat(lefts, 1)) @ orthogonalised(torch.cat(rights, 0))
    )
