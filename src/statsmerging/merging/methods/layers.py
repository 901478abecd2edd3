"""Merging layer by layer: nothing is in memory but one layer's task vectors and the result."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statsmerging.merging.task_vectors import TaskVectorBank, matrix_shape

#: Singular values below this share of the largest are beyond the rank of a float32 matrix.
RANK_TOLERANCE = 1e-6

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
    left, _, right = thin_svd(matrix)
    nearest: Tensor = left @ right
    return nearest


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, Vᵀ of one m × n matrix.

    A matrix that is far from square is brought to a square one by a QR decomposition first: as
    accurate, and several times as fast.
    """
    rows, columns = matrix.shape
    if columns > rows:
        right, values, left = thin_svd(matrix.mT)
        return left.mT, values, right.mT
    if rows < 2 * columns:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left, values, right
    orthonormal, triangular = torch.linalg.qr(matrix)
    left, values, right = torch.linalg.svd(triangular, full_matrices=False)
    return orthonormal @ left, values, right


def leading_triples(matrices: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triples of K matrices: K × m × r, K × r, K × r × n.

    From the eigenvectors of the smaller Gram matrix in float64, which costs a fraction of an SVD
    and is accurate for the leading triples. Beyond a matrix's rank all three parts are 0: whatever
    stood there would be rounding, and be orthogonalised against the vectors that do matter.
    """
    if matrices.shape[1] > matrices.shape[2]:
        right, values, left = leading_triples(matrices.mT, rank)
        return left.mT, values, right.mT
    lefts, rights, spectra = [], [], []
    for matrix in matrices:  # one by one: float64 doubles the memory
        wide = matrix.double()
        _, vectors = torch.linalg.eigh(wide @ wide.mT)
        left = vectors[:, -rank:].flip(1)
        scaled = left.mT @ wide
        values = torch.linalg.vector_norm(scaled, dim=1)
        present = values > RANK_TOLERANCE * values[0]
        right = scaled / values.where(present, torch.inf).unsqueeze(1)
        lefts.append((left * present).to(matrix.dtype))
        spectra.append((values * present).to(matrix.dtype))
        rights.append(right.to(matrix.dtype))
    return torch.stack(lefts), torch.stack(spectra), torch.stack(rights)
