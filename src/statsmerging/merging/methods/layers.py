"""Merging layer by layer: nothing is in memory but one layer's task vectors and the result."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statsmerging.merging.task_vectors import TaskVectorBank, matrix_shape

#: Layer name → K × n task vectors in float32.
Rows = Callable[[str], Tensor]


def stored_rows(bank: TaskVectorBank) -> Rows:
    """The bank's task vectors, converted to float32 one layer at a time."""
    return lambda layer: bank.vectors[layer].float()


@torch.no_grad()
def add_to_pretrained(bank: TaskVectorBank, update: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """State dict of θ₀ plus an update.

    Args:
        update: layer name → n numbers in any shape, float32.
    """
    weights = {}
    for layer, start in bank.pretrained.items():
        change = update(layer).reshape(start.shape)
        weights[layer] = (start.to(torch.promote_types(start.dtype, change.dtype)) + change).to(
            start.dtype
        )
    return {**bank.kept, **weights}


def merge_matrices(
    bank: TaskVectorBank, merge: Callable[[Tensor], Tensor], scale: float
) -> dict[str, Tensor]:
    """State dict of θ₀ + λ Δ, where Δ is ``merge`` of a matrix and the mean of a vector.

    Matrices are 2-D tensors and, as out × rest, tensors of more dimensions; a tensor that is a
    single row or column (a bias, a class token, a position embedding of 1 × N × D) is a vector.

    Args:
        merge: K × m × n task matrices of a layer → m × n.
        scale: λ.
    """

    def update(layer: str) -> Tensor:
        rows = bank.vectors[layer].float()
        shape = matrix_shape(bank.pretrained[layer])
        change = rows.mean(dim=0) if min(shape) == 1 else merge(rows.view(-1, *shape))
        return scale * change

    return add_to_pretrained(bank, update)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns (orthogonal Procrustes): U Vᵀ."""
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    nearest: Tensor = left @ right
    return nearest
