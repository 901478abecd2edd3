"""Statistics against NumPy's float64 moments and SVD, and their invariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from statsmerging.choices import Source
from statsmerging.merging import LayerStatistics, MergingError, TaskVectorBank, layer_statistics
from statsmerging.merging.statistics import matrix_statistics, top_singular_values


@settings(max_examples=40)
@given(
    rows=st.integers(1, 30),
    columns=st.integers(1, 30),
    rank=st.integers(1, 5),
    scale=st.sampled_from([1e-4, 1.0, 1e3]),
    seed=st.integers(0, 1000),
)
def test_matrix_statistics_equal_numpy(
    rows: int, columns: int, rank: int, scale: float, seed: int
) -> None:
    matrices = scale * np.random.default_rng(seed).normal(size=(2, rows, columns))
    found = matrix_statistics(torch.from_numpy(matrices), rank).numpy()
    for matrix, values in zip(matrices, found, strict=True):
        singular = np.zeros(rank)
        leading = np.linalg.svd(matrix, compute_uv=False)[:rank]
        singular[: len(leading)] = leading
        expected = [matrix.mean(), matrix.var(), np.linalg.norm(matrix), *singular]
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7 * scale)


def test_layers_of_a_bank(
    bank: TaskVectorBank, experts: dict[str, dict[str, Tensor]], pretrained: dict[str, Tensor]
) -> None:
    statistics = layer_statistics(bank, rank=3)
    assert statistics.values.shape == (len(bank.layers), 3, 6)
    assert statistics.columns[:3] == ("mean", "variance", "magnitude")
    convolution = bank.layers.index("convolution.weight")
    expected = np.linalg.svd(
        experts["svhn"]["convolution.weight"].double().view(4, -1).numpy(), compute_uv=False
    )
    np.testing.assert_allclose(statistics.values[convolution, 1, 3:], expected[:3], rtol=1e-5)
    # A vector is a 1 × n matrix: its one singular value is its norm, the rest is padding.
    bias = bank.layers.index("projection.bias")
    norm = experts["svhn"]["projection.bias"].double().norm()
    np.testing.assert_allclose(statistics.values[bias, 1, 2:], [norm, norm, 0, 0], rtol=1e-5)

    vectors = layer_statistics(bank, of="task_vectors", rank=1)
    difference = experts["cars"]["convolution.weight"] - pretrained["convolution.weight"]
    np.testing.assert_allclose(
        vectors.values[convolution, 2, 0], difference.double().mean(), rtol=1e-4
    )


@pytest.mark.parametrize("over", ["global", "per_layer"])
def test_standardised_columns_have_zero_mean_and_unit_variance(
    bank: TaskVectorBank, over: str
) -> None:
    values = layer_statistics(bank).standardised(over).values  # type: ignore[arg-type]
    dims = (0, 1) if over == "global" else (1,)
    torch.testing.assert_close(values.mean(dims), torch.zeros_like(values.mean(dims)))
    deviation = values.square().mean(dims).sqrt()
    # A column without variation (padding of a vector's singular values) is all zeros.
    ones = torch.where(deviation > 0.5, 1.0, 0.0).double()
    torch.testing.assert_close(deviation, ones)
    assert (ones == 1).any()


def test_both_puts_the_two_standardisations_side_by_side(bank: TaskVectorBank) -> None:
    raw = layer_statistics(bank)
    both = raw.standardised("both")
    assert torch.equal(both.values[:, :, :6], raw.standardised("global").values)
    assert torch.equal(both.values[:, :, 6:], raw.standardised("per_layer").values)
    assert len(both.columns) == 12


def test_identical_experts_have_no_signal_within_a_layer(
    pretrained: dict[str, Tensor], experts: dict[str, dict[str, Tensor]]
) -> None:
    same = dict.fromkeys(("one", "two"), experts["mnist"])
    statistics = layer_statistics(TaskVectorBank.from_state_dicts(pretrained, same))
    assert torch.count_nonzero(statistics.standardised("per_layer").values) == 0


def test_standardising_forgets_units() -> None:
    values = torch.randn(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names = (tuple("abcde"), ("x", "y", "z"))
    first = LayerStatistics(values, ("mean", "variance"), *names)
    second = LayerStatistics(values * 1e4 + 7, ("mean", "variance"), *names)
    torch.testing.assert_close(
        first.standardised("both").values, second.standardised("both").values
    )


def test_selection_and_pooling(bank: TaskVectorBank) -> None:
    statistics = layer_statistics(bank, rank=2)
    chosen = statistics.select(["mean", "singular_values"])
    assert chosen.columns == ("mean", "singular_value_1", "singular_value_2")
    assert torch.equal(chosen.values, statistics.values[:, :, [0, 3, 4]])
    assert torch.equal(statistics.pooled().values[0], statistics.values.mean(0))
    with pytest.raises(MergingError, match="choose at least one of mean, variance"):
        statistics.select([])
    with pytest.raises(MergingError, match="rank=0"):
        layer_statistics(bank, rank=0)


def test_misspelt_choices_name_the_valid_ones(bank: TaskVectorBank) -> None:
    with pytest.raises(MergingError, match="of=weight: choose one of weights, task_vectors"):
        layer_statistics(bank, of="weight")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="over=foo: choose one of global, per_layer, both"):
        layer_statistics(bank).standardised("foo")  # type: ignore[arg-type]


#: Singular values of large matrices by their number from 1, as experts and their limits have them.
SPECTRA: dict[str, Callable[[Tensor], Tensor]] = {
    "slow": lambda i: i**-0.5,
    "flat": lambda i: 1 - i / 1000,
    "of noise": lambda i: 1 - 0.5 * (i / 512) ** (2 / 3),
    "all equal": lambda i: torch.ones_like(i),
    "two clusters": lambda i: torch.where(i <= 20, 2.0, 1.0) + 1e-6 / i,
    "many orders of magnitude": lambda i: 10 ** (-5 * i),
    "of rank two": lambda i: torch.where(i <= 2, 1 / i, 0.0),
    "zero": torch.zeros_like,
}


@pytest.fixture(scope="module")
def bases() -> tuple[Tensor, Tensor]:
    """Orthonormal columns of 512 left and right vectors, float64."""
    generator = torch.Generator().manual_seed(8)
    left, right = (
        torch.randn(n, 512, generator=generator, dtype=torch.float64) for n in (512, 640)
    )
    return torch.linalg.qr(left).Q, torch.linalg.qr(right).Q


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e12])
def test_few_singular_values_of_large_matrices_are_those_of_float64(
    bases: tuple[Tensor, Tensor], spectrum: str, scale: float
) -> None:
    values = scale * SPECTRA[spectrum](torch.arange(1, 513, dtype=torch.float64))
    wide = bases[0] * values @ bases[1].mT
    for matrices in (wide.unsqueeze(0), wide.mT.unsqueeze(0)):
        found = top_singular_values(matrices, 3)[0]
        # A value below 1e-8 of the largest is the rounding of the Gram matrix in float64.
        torch.testing.assert_close(found, values[:3], rtol=1e-4, atol=2e-7 * float(values[0]))


def test_few_singular_values_depend_on_nothing_but_the_matrix() -> None:
    matrices = torch.randn(3, 520, 512, generator=torch.Generator().manual_seed(9)).double()
    state = torch.get_rng_state()
    found = top_singular_values(matrices, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(top_singular_values(matrices.flip(0), 3), found.flip(0))
    torch.manual_seed(1)
    assert torch.equal(top_singular_values(matrices[1:2], 3), found[1:2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_large_layers_of_a_bank_in_any_precision(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(10)
    start = {"weight": torch.randn(512, 600, generator=generator)}
    experts = {
        task: {"weight": start["weight"] + 0.1 * torch.randn(512, 600, generator=generator)}
        for task in ("one", "two")
    }
    bank = TaskVectorBank.from_state_dicts(start, experts, dtype=dtype)
    stored = bank.vectors["weight"].clone()
    sources: tuple[Source, ...] = ("weights", "task_vectors")
    for of in sources:
        statistics = layer_statistics(bank, of=of)
        assert torch.equal(bank.vectors["weight"], stored)
        matrices = stored.double().view(2, 512, 600)
        matrices = matrices + start["weight"] if of == "weights" else matrices
        expected = torch.linalg.svdvals(matrices)[:, :3]
        torch.testing.assert_close(statistics.values[0, :, 3:], expected, rtol=1e-4, atol=0)
        moments = torch.stack([matrices.mean((1, 2)), matrices.var((1, 2), correction=0)], dim=1)
        torch.testing.assert_close(statistics.values[0, :, :2], moments)
