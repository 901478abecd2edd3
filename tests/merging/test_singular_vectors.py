"""Singular value decompositions that take a shorter way, against LAPACK's in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statsmerging.merging.singular_vectors import (
    gram_matrix,
    joint_left_vectors,
    leading_eigenvectors,
    leading_triples,
    noise_levels,
    orthogonalised,
    smaller_grams,
    thin_svd,
)

SHAPES = [(4, 4), (3, 11), (11, 3), (5, 8), (1, 6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_thin_svd(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = thin_svd(matrix)
    smaller = min(shape)
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix))
    torch.testing.assert_close(left * values @ right, matrix)
    torch.testing.assert_close(left.mT @ left, torch.eye(smaller, dtype=torch.float64))
    torch.testing.assert_close(right @ right.mT, torch.eye(smaller, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_leading_triples_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    rank = max(1, min(shape) // 2)
    left, values, right = leading_triples(matrices, rank, torch.zeros(3))
    reference = torch.linalg.svd(matrices.double(), full_matrices=False)
    torch.testing.assert_close(values.double(), reference.S[:, :rank], rtol=1e-5, atol=0)
    # Singular vectors have a free sign, their products have none.
    found = left[:, :, :rank] * values.unsqueeze(1) @ right[:, :rank]
    expected = reference.U[:, :, :rank] * reference.S[:, None, :rank] @ reference.Vh[:, :rank]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_leading_triples_of_nothing_are_nothing() -> None:
    for part in leading_triples(torch.zeros(2, 3, 5), 2, torch.zeros(2)):
        assert not part.any()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_leading_triples_end_with_the_rank(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    low = torch.randn(shape[0], 2, generator=generator) @ torch.randn(
        2, shape[1], generator=generator
    )
    left, values, right = leading_triples(low.unsqueeze(0), 4, 1e-6 * low.norm().unsqueeze(0))
    assert values[0, :2].gt(1e-3).all()
    assert not values[0, 2:].any()
    assert not left[0, :, 2:].any()
    assert not right[0, 2:].any()
    torch.testing.assert_close(left[0] * values[0] @ right[0], low, rtol=0, atol=1e-5)


LARGE_WEIGHTS = ("none", "rows", "columns", "entry", "row scales", "everywhere")


def weights(large: str, generator: torch.Generator) -> Tensor:
    """Gaussian weights, 96 × 160, of which some are far larger than the others."""
    matrix = torch.randn(96, 160, generator=generator, dtype=torch.float64)
    if large == "rows":
        matrix[:2] *= 30
    elif large == "columns":
        matrix[:, :2] *= 30
    elif large == "entry":
        matrix[3, 4] = 1000
    elif large == "row scales":
        matrix *= torch.randn(96, 1, generator=generator, dtype=torch.float64).mul(1.5).exp()
    elif large == "everywhere":
        matrix *= torch.randn(96, 160, generator=generator, dtype=torch.float64).mul(2).exp()
    return matrix


@pytest.mark.parametrize("large", LARGE_WEIGHTS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_noise_lies_between_what_rounding_makes_and_what_was_learned(
    large: str, stored: torch.dtype
) -> None:
    """A change of rank 2 keeps two directions, wherever the weights beside it are large."""
    generator = torch.Generator().manual_seed(0)
    start = weights(large, generator).to(stored)
    change = 0.01 * torch.randn(96, 2, generator=generator, dtype=torch.float64)
    change = change @ torch.randn(2, 160, generator=generator, dtype=torch.float64)
    vector = (start.double() + change).to(stored).float() - start.float()
    rounding = torch.finfo(stored).eps
    (level,) = noise_levels(start, vector.reshape(1, -1), rounding, torch.float32)
    values = torch.linalg.svdvals(vector)
    assert values[1] > level > values[2]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_the_nearest_orthonormal_matrix_is_nearer_than_any_other(
    rows: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    nearest = orthogonalised(matrix)
    other = orthogonalised(torch.randn(rows, columns, generator=generator, dtype=torch.float64))
    assert (matrix - nearest).norm() <= (matrix - other).norm() + 1e-9


#: Singular values by their number, counted from 1.
SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    "slow": lambda i: i**-0.5,
    "exponential": lambda i: torch.exp(-i / 20),
    "flat": lambda i: 1 - i / 500,
    "one far above": lambda i: torch.where(i == 1, 10.0, 1 - i / 500),
    "steps": lambda i: torch.where(i <= 5, 3.0, 1.0) - i / 500,
    "many orders of magnitude": lambda i: i**-3.0,
    "of low rank": lambda i: torch.where(i <= 4, 1 / i, 0.0),
}


def with_spectrum(spectrum: str, rows: int = 120, columns: int = 150) -> Tensor:
    """A matrix with the named singular values, float64."""
    generator = torch.Generator().manual_seed(3)
    left, right = (
        torch.linalg.qr(torch.randn(size, rows, generator=generator, dtype=torch.float64)).Q
        for size in (rows, columns)
    )
    values = SPECTRA[spectrum](torch.arange(1, rows + 1, dtype=torch.float64))
    matrix: Tensor = left * values @ right.mT
    return matrix


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 12])
def test_few_of_many_eigenvectors_are_those_of_float64(spectrum: str, rank: int) -> None:
    gram = gram_matrix(with_spectrum(spectrum))
    found = leading_eigenvectors(gram, rank)
    values = torch.linalg.eigvalsh(gram).flip(0)[:rank]
    identity = torch.eye(rank, dtype=torch.float64)
    torch.testing.assert_close(found.mT @ found, identity, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mT @ gram @ found, values.diag(), rtol=1e-6, atol=1e-12)
    assert (gram @ found - found * values).norm(dim=0).le(1e-4 * values + 1e-12).all()


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("upright", [False, True])
def test_few_of_many_triples_are_those_of_the_svd(spectrum: str, upright: bool) -> None:
    matrix = with_spectrum(spectrum).float()
    matrix = matrix.mT.contiguous() if upright else matrix
    noise = 1e-6 * matrix.norm().unsqueeze(0)
    left, values, right = leading_triples(matrix.unsqueeze(0), 12, noise)
    reference = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = reference.S[:12] * (reference.S[:12] > noise)
    torch.testing.assert_close(values[0].double(), kept, rtol=1e-5, atol=0)
    expected = reference.U[:, :12] * kept @ reference.Vh[:12]
    found = (left[0] * values[0] @ right[0]).double()
    assert (found - expected).norm() <= 2e-6 * expected.norm()


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_very_few_of_a_large_matrix_are_those_of_float64(spectrum: str) -> None:
    matrix = with_spectrum(spectrum, 512, 512)
    gram = gram_matrix(matrix)
    found = leading_eigenvectors(gram, 5)
    values = SPECTRA[spectrum](torch.arange(1, 6, dtype=torch.float64)).square()
    torch.testing.assert_close(found.mT @ found, torch.eye(5).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.mT @ gram @ found, values.diag(), rtol=1e-6, atol=1e-12)
    assert (gram @ found - found * values).norm(dim=0).le(1e-5 * values + 1e-12).all()


@pytest.mark.parametrize("rows", [1, 191, 192, 193, 400])
def test_a_gram_matrix_is_the_product_with_the_transpose(rows: int) -> None:
    wide = torch.randn(rows, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gram = gram_matrix(wide)
    torch.testing.assert_close(gram, wide @ wide.mT, rtol=0, atol=1e-12)
    assert torch.equal(gram, gram.mT)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5)])
def test_smaller_grams_are_of_the_smaller_side(shape: tuple[int, int]) -> None:
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(4))
    values = torch.linalg.svdvals(matrices.double()).square().flip(1)
    torch.testing.assert_close(torch.linalg.eigvalsh(smaller_grams(matrices)), values)


@pytest.mark.parametrize("smallest", [1.0, 0.2, 1e-2, 1e-5])
@pytest.mark.parametrize("upright", [False, True])
def test_far_from_square_too_the_nearest_is_that_of_the_svd(smallest: float, upright: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    left, right = (
        torch.linalg.qr(torch.randn(size, 20, generator=generator, dtype=torch.float64)).Q
        for size in (90, 20)
    )
    matrix = (left * torch.linspace(1, smallest, 20) @ right.mT).float()
    matrix = matrix if upright else matrix.mT.contiguous()
    nearest = orthogonalised(matrix).double()
    exact = torch.linalg.svd(matrix.double(), full_matrices=False)
    assert (nearest - exact.U @ exact.Vh).abs().max() <= 1e-6 / smallest
    small = nearest.mT @ nearest if upright else nearest @ nearest.mT
    torch.testing.assert_close(small, torch.eye(20, dtype=torch.float64), rtol=0, atol=1e-5)


def test_far_from_square_too_parallel_columns_share_a_direction() -> None:
    column = torch.randn(40, generator=torch.Generator().manual_seed(6))
    matrix = torch.stack([column, column, torch.zeros(40)], dim=1)
    nearest = orthogonalised(matrix)
    unit = column / column.norm() / 2**0.5
    expected = torch.stack([unit, unit, torch.zeros(40)], dim=1)
    torch.testing.assert_close(nearest, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("upright", [True, False])
def test_empty_columns_stay_empty_however_many(upright: bool) -> None:
    """What low-rank experts leave of a large layer: 8 tasks with 16 of 96 directions each."""
    generator = torch.Generator().manual_seed(7)
    parts = [torch.randn(1600, 16, generator=generator) for _ in range(8)]
    matrix = torch.cat([torch.nn.functional.pad(part, (0, 80)) for part in parts], dim=1)
    given = matrix if upright else matrix.mT.contiguous()
    nearest = orthogonalised(given) if upright else orthogonalised(given).mT
    there = matrix.any(dim=0)
    assert not nearest[:, ~there].any()
    torch.testing.assert_close(nearest[:, there], orthogonalised(torch.cat(parts, dim=1)))


@pytest.mark.parametrize("shape", [(64, 5), (5, 64), (12, 12)])
@pytest.mark.parametrize("rank", [0, 2, 4])
def test_joint_left_vectors_span_the_matrices_together(shape: tuple[int, int], rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = shape
    left = torch.randn(3, rows, rank, generator=generator)
    matrices = left @ torch.randn(3, rank, columns, generator=generator)
    noise = 1e-6 * torch.linalg.matrix_norm(matrices)
    basis = joint_left_vectors(matrices, noise)
    assert basis.shape == (rows, min(rows, 3 * rank))
    torch.testing.assert_close(basis.mT @ basis, torch.eye(basis.shape[1]))
    torch.testing.assert_close(basis @ (basis.mT @ matrices), matrices, rtol=0, atol=1e-4)
