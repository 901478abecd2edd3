"""Singular vectors of task matrices: leading triples, orthonormal sets, and what rounding makes.

Task Singular Vectors (Gargiulo et al., CVPR 2025) keeps the leading singular triples of every task
and makes the vectors of all tasks orthonormal together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from statsmerging.merging.state_dicts import matrix_shape

#: Singular values below this share of a matrix's norm are the rounding of float32 arithmetic.
RANK_TOLERANCE = 1e-6

#: Largest residual of an eigenvector that is looked for among those of float32, by its eigenvalue.
RESIDUAL = 1e-4

#: Eigenvectors of float32 beyond the r wanted ones among which these are looked for, at least.
MARGIN = 16

#: Matrices with a smaller side below this, and more vectors of one than leave a Krylov space this
#: many steps in a quarter of it, are decomposed as a whole, which costs no more.
KRYLOV_SIDE, KRYLOV_STEPS = 512, 12

#: Vectors of a Krylov space's block beyond the r wanted ones.
KRYLOV_MARGIN = 3

#: Largest residual of an eigenvector from a Krylov space, by its eigenvalue.
KRYLOV_RESIDUAL = 1e-6

#: The smallest eigenvalue by the largest from which on float32 is enough for the inverse root.
WELL_CONDITIONED = 1e-2

#: Rows of a Gram matrix that are computed at once.
_BLOCK = 192


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
    rows, columns = matrix.shape
    nearest: Tensor
    if columns > rows:
        return orthogonalised(matrix.mT).mT
    present = matrix.any(dim=0)
    if not present.all():
        # Low-rank experts leave most columns empty: slow, and eigh fails on so many zeros.
        nearest = torch.zeros_like(matrix)
        if present.any():
            nearest[:, present] = orthogonalised(matrix[:, present])
        return nearest
    if rows < 2 * columns:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        nearest = left * (values > RANK_TOLERANCE * values[0]) @ right
        return nearest
    # Far from square: A (AᵀA)^-½ where the root is accurate, or else the way of ``thin_svd``.
    squares, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    if squares[0] > WELL_CONDITIONED * squares[-1]:
        nearest = matrix @ (vectors / squares.sqrt() @ vectors.mT)
        return nearest
    orthonormal, triangular = torch.linalg.qr(matrix)
    nearest = orthonormal @ orthogonalised(triangular)
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


def leading_triples(
    matrices: Tensor, rank: int, noise: Tensor, grams: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The leading singular triples of K matrices: K × m × r, K × r, K × r × n.

    From the eigenvectors of the smaller Gram matrix in float64, which costs a fraction of an SVD
    and is accurate for the leading triples. Beyond a matrix's rank all three parts are 0: whatever
    stood there would be rounding, and be orthogonalised against the vectors that do matter.

    Args:
        noise: of each matrix, the singular value up to which a direction is beyond the rank, K.
        grams: ``smaller_grams``, if they are known.
    """
    if matrices.shape[1] > matrices.shape[2]:
        right, values, left = leading_triples(matrices.mT, rank, noise, grams)
        return left.mT, values, right.mT
    lefts, rights, spectra = [], [], []
    # One by one: float64 doubles the memory.
    for k, (matrix, level) in enumerate(zip(matrices, noise, strict=True)):
        wide = matrix.double()
        left = leading_eigenvectors(gram_matrix(wide) if grams is None else grams[k], rank)
        scaled = left.mT @ wide
        values = torch.linalg.vector_norm(scaled, dim=1)
        present = values > level
        right = scaled / values.where(present, torch.inf).unsqueeze(1)
        lefts.append((left * present).to(matrix.dtype))
        spectra.append((values * present).to(matrix.dtype))
        rights.append(right.to(matrix.dtype))
    return torch.stack(lefts), torch.stack(spectra), torch.stack(rights)


def joint_left_vectors(matrices: Tensor, noise: Tensor) -> Tensor:
    """Left singular vectors of K matrices side by side, m × r: the r that are more than rounding.

    [T_1 … T_K] has those of [U_1 Σ_1 … U_K Σ_K], which is narrow where ranks are low.

    Args:
        matrices: K × m × n.
        noise: of each matrix, the singular value up to which a direction is beyond the rank, K.
    """
    left, values, _ = leading_triples(matrices, min(matrices.shape[1:]), noise)
    scaled = torch.cat(tuple(left * values.unsqueeze(1)), dim=1)[:, values.flatten() > 0]
    together = noise.norm()  # the experts' errors are independent
    if scaled.shape[1] < len(scaled):
        joint, spectrum, _ = leading_triples(
            scaled.unsqueeze(0), scaled.shape[1], together.unsqueeze(0)
        )
        return joint[0][:, spectrum[0] > 0]
    squares, vectors = torch.linalg.eigh(gram_matrix(scaled.double()))
    basis: Tensor = vectors[:, squares > together.double() ** 2].flip(1).to(scaled.dtype)
    return basis


def smaller_grams(matrices: Tensor) -> Tensor:
    """T_k T_kᵀ of K matrices that are wider than high, T_kᵀ T_k of others: K × s × s, float64."""
    rows, columns = matrices.shape[1:]
    wide = matrices if rows <= columns else matrices.mT
    return torch.stack([gram_matrix(matrix.double()) for matrix in wide])


def gram_matrix(wide: Tensor) -> Tensor:
    """A Aᵀ; what lies above the blocks of its diagonal is mirrored, not computed."""
    gram = wide.new_zeros(len(wide), len(wide))
    for begin in range(0, len(wide), _BLOCK):
        end = begin + _BLOCK
        gram[begin:end, :end] = wide[begin:end] @ wide[:end].mT
    return gram.tril() + gram.tril(-1).mT


def leading_singular_values(matrices: Tensor, rank: int) -> Tensor:
    """The r ≤ min(m, n) largest singular values of K matrices, K × m × n → K × r.

    They are square roots of eigenvalues of the smaller Gram matrix. Of float64 matrices, few of
    many values are looked for in a Krylov space, within 1e-4; where the residuals do not tell that
    they are as near, and elsewhere, all of them are computed, for which squaring the condition
    number is harmless.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.transpose(1, 2)
    steps = _krylov_steps(wide.shape[1], rank)
    if not steps:
        return _all_singular_values(wide)[:, :rank]
    found = []
    for matrix in wide:
        values = _krylov_values(matrix, rank, steps)
        if values is None:
            values = _all_singular_values(matrix.unsqueeze(0))[0, :rank]
        found.append(values)
    return torch.stack(found)


def _all_singular_values(wide: Tensor) -> Tensor:
    gram = wide @ wide.transpose(1, 2)
    values: Tensor = torch.linalg.eigvalsh(gram).flip(1).clamp_min(0).sqrt()
    return values


def _krylov_values(wide: Tensor, rank: int, steps: int) -> Tensor | None:
    """The r largest singular values of one matrix; ``None`` where they are not accurate enough.

    The space is that of the Gram matrix in float32, the values are those of the matrix itself. The
    residuals bound their error: within ‖A Aᵀ v − σ² v‖ of σ² lies an eigenvalue (Parlett, *The
    Symmetric Eigenvalue Problem*, 1998, 4.5).
    """
    size = torch.linalg.vector_norm(wide).clamp_min(torch.finfo(torch.float32).tiny)
    gram = gram_matrix(wide.float().div_(size))
    left, _ = _krylov_vectors(gram, rank, steps, RESIDUAL / 2)
    left = torch.linalg.qr(left.to(wide)).Q
    along = left.mT @ wide
    squares, rotation = torch.linalg.eigh(along @ along.mT)
    left, along = left @ rotation, rotation.mT @ along
    residuals = torch.linalg.vector_norm(wide @ along.mT - left * squares, dim=0)
    accurate = bool((residuals <= RESIDUAL * squares).all())
    return squares.flip(0).sqrt() if accurate else None


def leading_eigenvectors(gram: Tensor, rank: int) -> Tensor:
    """Orthonormal eigenvectors of the r largest eigenvalues of a symmetric matrix, s × r.

    Very few are looked for in a Krylov space, in a third of the time of all of them. Few are found
    in two thirds of the time: the leading vectors of float32, corrected to first order for what it
    has lost, span a space that holds those of float64, which are found in it. If a residual tells
    that it does not, the whole problem is solved in float64.

    Args:
        gram: float64, positive semidefinite.
    """
    vectors: Tensor
    steps = _krylov_steps(len(gram), rank)
    if steps:
        vectors, accurate = _krylov_vectors(gram, rank, steps, KRYLOV_RESIDUAL)
        if accurate:
            return vectors
    among = rank + max(MARGIN, rank // 3)
    if 2 * among <= len(gram):
        basis = _leading_space(gram, among)
        squares, rotation = torch.linalg.eigh(basis.mT @ gram @ basis)
        squares, vectors = squares[-rank:], basis @ rotation[:, -rank:]
        residuals = torch.linalg.vector_norm(gram @ vectors - vectors * squares, dim=0)
        if (residuals <= RESIDUAL * squares).all():
            return vectors.flip(1)
    _, vectors = torch.linalg.eigh(gram)
    return vectors[:, -rank:].flip(1)


def _krylov_steps(side: int, rank: int) -> int:
    """Steps to a quarter of a matrix's side; 0 where a Krylov space is no gain."""
    steps = side // 4 // (rank + KRYLOV_MARGIN)
    return steps if side >= KRYLOV_SIDE and steps >= KRYLOV_STEPS else 0


def _krylov_vectors(gram: Tensor, rank: int, steps: int, tolerance: float) -> tuple[Tensor, bool]:
    """The r leading eigenvectors within a block Krylov space, and whether they are those of all.

    The space of a random block X is that of X, G X, G² X … (Musco & Musco, *Randomized Block Krylov
    Methods for Stronger and Faster Approximate Singular Value Decomposition*, NeurIPS 2015). Drawn
    from a seed of its own, the block is the same for every matrix and in every process.

    Args:
        steps: at most so many blocks.
        tolerance: largest residual of a vector, by its eigenvalue, with which the space is enough.
    """
    block, generator = rank + KRYLOV_MARGIN, torch.Generator().manual_seed(0)
    newest = torch.randn(len(gram), block, generator=generator, dtype=gram.dtype).to(gram.device)
    newest = torch.linalg.qr(newest).Q
    basis, products = gram.new_empty(2, len(gram), steps * block)
    for step in range(1, steps + 1):
        end = step * block
        known, added = basis[:, : end - block], slice(end - block, end)
        for _ in range(2 if step > 1 else 0):  # once leaves what rounding makes of parallel parts
            newest = torch.linalg.qr(newest - known @ (known.mT @ newest)).Q
        basis[:, added] = newest
        newest = products[:, added] = gram @ newest
        if step % KRYLOV_STEPS and step < steps:
            continue
        squares, rotation = torch.linalg.eigh(basis[:, :end].mT @ products[:, :end])
        squares, rotation = squares[-rank:], rotation[:, -rank:]
        vectors = basis[:, :end] @ rotation
        residuals = torch.linalg.vector_norm(
            products[:, :end] @ rotation - vectors * squares, dim=0
        )
        accurate = bool((residuals <= tolerance * squares).all())
        if accurate:
            break
    return vectors.flip(1), accurate


def _leading_space(gram: Tensor, size: int) -> Tensor:
    """An orthonormal basis of nearly the leading eigenvectors, found in float32."""
    values, vectors = torch.linalg.eigh(gram.float())
    outside, inside = vectors.split([len(gram) - size, size], dim=1)
    start = inside.to(gram)
    residuals = gram @ start - start * values[-size:]
    # Perturbation theory: ⟨q_j, r_i⟩ / (λ_i − λ_j) of an outer vector q_j is missing in vector i.
    gaps = values[-size:] - values[:-size].unsqueeze(1)
    gaps = gaps.clamp_min(torch.finfo(values.dtype).eps * float(values[-1]) or 1.0)
    missing = outside @ (outside.mT @ residuals.to(values) / gaps)
    basis: Tensor
    basis, _ = torch.linalg.qr(start + missing)
    return basis
