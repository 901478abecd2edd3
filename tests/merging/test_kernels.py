"""Both kernels, plain and compiled, against float64 sums."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from statsmerging.merging.errors import MergingError
from statsmerging.merging.kernels import BLOCK, LONG, PLAIN, Kernels, compiled_kernels

SIZES = [1, 1000, LONG, BLOCK + 3]


@cache
def kernels(name: str) -> Kernels:
    if name == "plain":
        return PLAIN
    try:
        return compiled_kernels()
    except MergingError as error:
        pytest.skip(str(error))


def layer(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """θ₀, λ and the task vectors of three experts, of the sizes that real ones have."""
    generator = torch.Generator().manual_seed(size)
    return (
        0.02 * torch.randn(size, generator=generator),
        0.3 + 0.2 * torch.randn(3, generator=generator),
        (1e-3 * torch.randn(3, size, generator=generator)).to(dtype),
    )


@pytest.mark.parametrize("name", ["plain", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_weighted_sum_equals_float64(name: str, dtype: torch.dtype, size: int) -> None:
    start, coefficients, vectors = layer(size, dtype)
    before = start.clone()
    found = kernels(name).weighted_sum(start, coefficients, vectors)
    expected = start.double() + coefficients.double() @ vectors.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(start, before)


@pytest.mark.parametrize("name", ["plain", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_inner_products_equal_float64(name: str, dtype: torch.dtype, size: int) -> None:
    gradient, _, vectors = layer(size, dtype)
    found = kernels(name).inner_products(vectors, gradient)
    expected = vectors.double() @ gradient.double()
    # Rounding is bounded by the sum of magnitudes, which may be far above the product itself.
    scale = float((vectors.double().abs() @ gradient.double().abs()).max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 * scale)


def test_without_a_compiler_the_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nlong explanation")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    with pytest.raises(MergingError, match=r"^torch\.compile fails here: no C\+\+ compiler$"):
        compiled_kernels.__wrapped__()
