"""Singular value decompositions that take a shorter way, against LAPACK's in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statsmerging.merging.singular_vectors import (
    leading_triples,
    noise_levels,
    orthogonalised,
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
