"""ACE-Merging: RegMean's closed form, with Gram matrices estimated from the task matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.singular_vectors import thin_svd


@dataclass(frozen=True)
class Ace(DataFreeMethod):
    """ACE-Merging (Xu et al., *ACE-Merging: Data-Free Model Merging with Adaptive Covariance
    Estimation*, CVPR 2026).

    The rows of an m × n task matrix T_k, less their mean, stand for the task's inputs: with the
    centred matrix T̃_k the covariance is S_k = T̃_kᵀ T̃_k. With it, least squares on all tasks give

        W = (Σ_k T̃_k (S_k + ε I)) (Σ_k (S_k + ε I) + C)⁻¹,        C = 1 cᵀ

    where c is the mean row of Σ_k S_k. If the tasks' sizes differ much in a layer (the variance of
    log ‖T_k‖² over its squared mean exceeds a threshold), S_k and ε are divided by ‖T̃_k‖² and C by
    the mean of ‖T_k‖². W then gets σ U Vᵀ added: the leading singular vectors of
    W + Σ_k T̃_k (S_k − S̄), with the mean σ of their singular values.

    As in the released code, the mean row of each T_k is left out of the update, and all but 2-D
    tensors are averaged. Difference to it: experts that left a layer as it was do not count there.
    One expert does not come back, since C shrinks it.

    Args:
        ridge: ε, in the units of squared weights; 1e-5 in the paper for ViTs (4e-2 for GPT-2), 1e-2
            in the released code.
        threshold: of the variance; 0.3 in the paper.
        share: of the min(m, n) directions in U and V, rounded down; 0.3 in the paper.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest; the released code averages them.
    """

    name = "ace"
    title = "ACE-Merging"
    tunable = Grid("ridge", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0))

    ridge: float = parameter(1e-5, above=0)
    threshold: float = parameter(0.3, at_least=0)
    share: float = parameter(0.3, above=0, at_most=1)
    flatten_convolutions: bool = parameter(False)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        def merged(matrices: Tensor, noise: Tensor) -> Tensor:
            del noise
            return least_squares(matrices, self.ridge, self.threshold, self.share)

        return merge_matrices(bank, merged, 1.0, flatten_convolutions=self.flatten_convolutions)


def least_squares(matrices: Tensor, ridge: float, threshold: float, share: float) -> Tensor:
    """Task matrices K × m × n → merged update m × n; in float64, as covariances are squares.

    Args:
        ridge, threshold, share: see ``Ace``.
    """
    sizes = matrices.double().square().sum(dim=(1, 2))
    matrices, sizes = matrices[sizes > 0], sizes[sizes > 0]
    tasks, _, columns = matrices.shape
    heterogeneous = size_variance(sizes) > threshold
    covariance = sizes.new_zeros(columns, columns)
    changes, products, ridged = sizes.new_zeros(3, *matrices.shape[1:])
    diagonal = 0.0
    for matrix in matrices:  # one by one: a covariance may be larger than the matrix
        centred = matrix.double() - matrix.double().mean(dim=0)
        size = float(centred.square().sum()) if heterogeneous else 1.0
        if not size:  # all rows are the same: nothing but the mean, which is left out
            continue
        covariance += centred.mT @ centred / size
        diagonal += ridge / size
        changes += centred
        products += torch.linalg.multi_dot([centred, centred.mT, centred]) / size
        ridged += ridge / size * centred
    if not diagonal:
        return torch.zeros(matrices.shape[1:], device=matrices.device)

    regular = covariance + diagonal * torch.eye(columns).to(covariance)
    prior = covariance.mean(dim=0) / (sizes.mean() if heterogeneous else 1.0)
    merged: Tensor = torch.linalg.solve(regular + prior, products + ridged, left=False)
    if heterogeneous:
        residual = products - changes @ regular / tasks
        merged = merged + flat_part(merged + residual, share)
    return merged.to(matrices.dtype)


def size_variance(sizes: Tensor) -> float:
    """Variance of the logarithms of K sizes ‖T_k‖² by their squared mean; 0 for one task."""
    if len(sizes) < 2:
        return 0.0
    logarithms = sizes.log()
    return float(logarithms.var() / logarithms.mean().square())


def flat_part(matrix: Tensor, share: float) -> Tensor:
    """The leading singular directions of an m × n matrix, all with their mean singular value."""
    left, values, right = thin_svd(matrix)
    kept = int(share * len(values))
    if not kept:
        return torch.zeros_like(matrix)
    return values[:kept].mean() * (left[:, :kept] @ right[:kept])
