"""Singular vectors of task matrices: leading triples, orthonormal sets, and what rounding makes.

Task Singular Vectors (Gargiulo et al., CVPR 2025) keeps the leading singular triples of every task
and makes the vectors of all tasks orthonormal together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from statsmerging.merging.bank import matrix_shape

#: Singular values below this share of a matrix's norm are the rounding of float32 arithmetic.
RANK_TOLERANCE = 1e-6


def noise_levels(
    pretrained: Tensor, vectors: Tensor, rounding: float, stored: torch.dtype
) -> Tensor:
    """Singular values of the K task matrices of a layer that rounding alone can make, K.

    θ₀ + T_k was rounded when the expert was stored, T_k when the bank was. Such errors are
    independent and at most half an epsilon of an entry. Where a coarse type lost an entry's whole
    change, the error is that change, which is no larger than those that were kept. The norm of a
    matrix of independent entries of deviations s is about the largest norm of a row of s plus that
    of a column (Bandeira & van Handel, *Sharp nonasymptotic bounds on the norm of random matrices
    with independent entries*, 2016), so that a few large weights make no noise elsewhere.

    Args:
        pretrained: θ₀ of the layer.
        vectors: T_k, K × n, float32.
        rounding: machine epsilon of the type in which the experts' layer was stored.
        stored: type in which the task vectors were stored.
    """
    start = pretrained.float().reshape(matrix_shape(pretrained))
    levels = []
    for change in vectors.reshape(-1, *start.shape):
        norm, moved = change.norm(), change.abs()
        typical = norm / start.numel() ** 0.5
        lost = (rounding / 2 * (start + change).abs()).minimum(moved.clamp_min(typical))
        lost += torch.finfo(stored).eps / 2 * moved
        largest = lost.norm(dim=0).max() + lost.norm(dim=1).max()
        levels.append(largest + RANK_TOLERANCE * norm)
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
