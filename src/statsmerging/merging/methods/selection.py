"""The k-th smallest of values that come in parts, exactly, without holding or sorting them.

A task vector has 10⁸ entries and more; a quantile over all of it is found in two passes that
count, first by the upper and then by the lower half of the bits of every float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_HALF = 1 << 16

#: The same parts at every call, K × n_ℓ each, float32.
Parts = Callable[[], Iterable[Tensor]]


def kth_smallest(parts: Parts, rank: int) -> Tensor:
    """The value of the given rank (1 for the smallest) in each of K rows, K.

    Args:
        parts: called twice.
        rank: at least 1 and at most the number of values in a row.
    """
    uppers = _counts((_ordered_bits(part) >> 16) + _HALF // 2 for part in parts())
    upper, rank_within = _bucket(uppers, torch.full_like(uppers[:, :1], rank))

    def lower_bits_of_bucket() -> Iterable[Tensor]:
        for part in parts():
            bits = _ordered_bits(part)
            inside = (bits >> 16) + _HALF // 2 == upper
            # The overflow bucket at the end takes what lies in another upper half.
            yield torch.where(inside, bits & (_HALF - 1), _HALF)

    lower, _ = _bucket(_counts(lower_bits_of_bucket()), rank_within)
    bits = ((upper - _HALF // 2) << 16) | lower
    return _flip_negative(bits.to(torch.int32)).view(torch.float32).squeeze(1)


def _ordered_bits(values: Tensor) -> Tensor:
    """Integers in the order of the given float32 values."""
    return _flip_negative(values.contiguous().view(torch.int32))


def _flip_negative(bits: Tensor) -> Tensor:
    # Positive floats are ordered as their bits are; negative ones the other way round.
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _counts(parts: Iterable[Tensor]) -> Tensor:
    """How often each of 0 … 2¹⁶ occurs in each row: K × (2¹⁶ + 1)."""
    return sum(
        (torch.stack([torch.bincount(row, minlength=_HALF + 1) for row in part]) for part in parts),
        start=torch.tensor(0),
    )


def _bucket(counts: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """The value that holds the given rank, and the rank among its equals; K × 1 each."""
    cumulative = counts.cumsum(dim=1)
    bucket = torch.searchsorted(cumulative, rank)
    before = torch.where(bucket > 0, cumulative.gather(1, (bucket - 1).clamp_min(0)), 0)
    return bucket, rank - before
