"""Merging layer by layer: nothing is in memory but one layer's task vectors and the result."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank, matrix_shape

#: Singular values below this share of a matrix's norm are the rounding of float32 arithmetic.
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
    bank: TaskVectorBank,
    merge: Callable[[Tensor, Tensor], Tensor],
    scale: float,
    *,
    flatten_convolutions: bool,
) -> dict[str, Tensor]:
    """State dict of θ₀ + λ Δ, where Δ is ``merge`` of matrices and the mean of other tensors.

    Args:
        merge: K × m × n task matrices of a layer and their ``noise_levels`` → m × n.
        scale: λ.
        flatten_convolutions: see ``is_matrix``.
    """

    def update(layer: str) -> Tensor:
        rows, start = stored_rows(bank)(layer), bank.pretrained[layer]
        if not is_matrix(start, flatten_convolutions=flatten_convolutions):
            return scale * rows.mean(dim=0)
        matrices = rows.view(-1, *matrix_shape(start))
        return scale * merge(matrices, noise_levels(bank, layer))

    return add_to_pretrained(bank, update)


def is_matrix(tensor: Tensor, *, flatten_convolutions: bool) -> bool:
    """Whether a tensor is merged as a matrix: 2-D ones, of more than a single row or column.

    Args:
        flatten_convolutions: tensors of more dimensions (convolutions, patch embeddings) are, as
            out × rest, matrices too.
    """
    dimensions_fit = tensor.dim() == 2 or (flatten_convolutions and tensor.dim() > 2)
    return dimensions_fit and min(matrix_shape(tensor)) > 1


def noise_levels(bank: TaskVectorBank, layer: str) -> Tensor:
    """Singular values of the K task matrices of a layer that rounding alone can make, K.

    θ₀ + T_k was rounded when the expert was stored, T_k when the bank was. Such errors are at most
    half an epsilon of an entry and independent, and the norm of an m × n matrix of independent
    entries of deviation s is s (√m + √n).
    """
    start, vectors = bank.pretrained[layer].float().flatten(), bank.vectors[layer]
    rows, columns = matrix_shape(bank.pretrained[layer])
    spread = (rows**0.5 + columns**0.5) / (2 * start.numel() ** 0.5)
    levels = []
    for vector in vectors:
        norm, expert_norm = vector.float().norm(), (start + vector).norm()
        rounding = bank.rounding * expert_norm + torch.finfo(vectors.dtype).eps * norm
        levels.append(spread * rounding + RANK_TOLERANCE * norm)
    return torch.stack(levels)


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns (orthogonal Procrustes): U Vᵀ.

    Directions beyond the matrix's rank, which are arbitrary, are left out: parallel columns share
    one direction, and a column of zeros stays.
    """
    left, values, right = thin_svd(matrix)
    nearest: Tensor = left * (values > RANK_TOLERANCE * values[0]) @ right
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


def leading_triples(matrices: Tensor, rank: int, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triples of K matrices: K × m × r, K × r, K × r × n.

    From the eigenvectors of the smaller Gram matrix in float64, which costs a fraction of an SVD
    and is accurate for the leading triples. Beyond a matrix's rank all three parts are 0: whatever
    stood there would be rounding, and be orthogonalised against the vectors that do matter.

    Args:
        noise: of each matrix, the singular value up to which a direction is beyond the rank, K.
    """
    if matrices.shape[1] > matrices.shape[2]:
        right, values, left = leading_triples(matrices.mT, rank, noise)
        return left.mT, values, right.mT
    lefts, rights, spectra = [], [], []
    # One by one: float64 doubles the memory.
    for matrix, level in zip(matrices, noise, strict=True):
        wide = matrix.double()
        _, vectors = torch.linalg.eigh(wide @ wide.mT)
        left = vectors[:, -rank:].flip(1)
        scaled = left.mT @ wide
        values = torch.linalg.vector_norm(scaled, dim=1)
        present = values > level
        right = scaled / values.where(present, torch.inf).unsqueeze(1)
        lefts.append((left * present).to(matrix.dtype))
        spectra.append((values * present).to(matrix.dtype))
        rights.append(right.to(matrix.dtype))
    return torch.stack(lefts), torch.stack(spectra), torch.stack(rights)
