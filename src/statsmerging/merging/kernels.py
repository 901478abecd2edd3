"""The two passes over the task vectors that every learning step makes, at memory bandwidth.

Both are bound by reading the K × n matrix of a layer, so each reads it once: a weighted sum of its
rows (the merge) and a product with one vector (the gradient of the coefficients). The plain kernels
are ordinary torch operations on blocks that stay in the cache; the compiled ones are the same sums
in one loop, written by torch.compile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from statsmerging.merging.errors import MergingError

#: Columns of a block: small enough that a block's sum stays in the cache while the rows pass by,
#: large enough that calling torch costs nothing beside it.
BLOCK = 1 << 20

#: Columns from which on a layer's size, not the number of calls, decides what a pass costs.
LONG = 1 << 16


class Kernels(NamedTuple):
    """Both passes, for vectors in the precision of the other arguments or in a lower one.

    Attributes:
        weighted_sum: (start n, coefficients K, vectors K × n) → start + Σ_k λ_k T_k, a new tensor.
        inner_products: (vectors K × n, gradient n) → ⟨T_k, G⟩ for every k, in G's precision.
    """

    weighted_sum: Callable[[Tensor, Tensor, Tensor], Tensor]
    inner_products: Callable[[Tensor, Tensor], Tensor]


def plain_weighted_sum(start: Tensor, coefficients: Tensor, vectors: Tensor) -> Tensor:
    """``Kernels.weighted_sum`` by one scaled addition per row and block."""
    if start.device.type != "cpu" or start.numel() < LONG:
        return torch.addmv(start, vectors.T.to(start.dtype), coefficients)
    # A CPU's BLAS reads a matrix of a few long rows at a fraction of the memory's speed.
    factors = coefficients.tolist()
    total = start.clone()
    for begin in range(0, total.numel(), BLOCK):
        block = total[begin : begin + BLOCK]
        for factor, row in zip(factors, vectors[:, begin : begin + BLOCK], strict=True):
            block.add_(row, alpha=factor)
    return total


def plain_inner_products(vectors: Tensor, gradient: Tensor) -> Tensor:
    """``Kernels.inner_products`` by one matrix-vector product, or by one per block."""
    if vectors.dtype == gradient.dtype:
        return vectors @ gradient
    products = gradient.new_zeros(vectors.shape[0])
    for begin in range(0, gradient.numel(), BLOCK):
        block = gradient[begin : begin + BLOCK]
        for k, row in enumerate(vectors[:, begin : begin + BLOCK]):
            products[k] += torch.dot(row.to(gradient.dtype), block)
    return products


PLAIN = Kernels(plain_weighted_sum, plain_inner_products)


@functools.cache
def compiled_kernels() -> Kernels:
    """The same sums as ``PLAIN``, long layers' in one loop over the columns, by torch.compile.

    They are compiled at the first use of every K and precision (seconds), for all n at once.

    Raises:
        MergingError: this machine cannot compile (a CPU needs a C++ compiler).
    """
    long_sum = torch.compile(_weighted_sum, dynamic=True)
    long_products = torch.compile(_inner_products, dynamic=True)

    def weighted_sum(start: Tensor, coefficients: Tensor, vectors: Tensor) -> Tensor:
        chosen = plain_weighted_sum if start.numel() < LONG else long_sum
        return chosen(start, coefficients, vectors)

    def inner_products(vectors: Tensor, gradient: Tensor) -> Tensor:
        chosen = plain_inner_products if gradient.numel() < LONG else long_products
        return chosen(vectors, gradient)

    try:
        long_sum(torch.ones(8), torch.ones(2), torch.ones(2, 8))
    except Exception as error:  # whatever the compiler, or its absence, raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MergingError(f"torch.compile fails here: {reason}") from error
    return Kernels(weighted_sum, inner_products)


def _weighted_sum(start: Tensor, coefficients: Tensor, vectors: Tensor) -> Tensor:
    total = start
    for k in range(vectors.shape[0]):
        total = total + coefficients[k] * vectors[k].to(start.dtype)
    return total


def _inner_products(vectors: Tensor, gradient: Tensor) -> Tensor:
    return torch.stack([(row.to(gradient.dtype) * gradient).sum() for row in vectors.unbind()])
