"""The k-th smallest value against sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statsmerging.merging.methods.selection import kth_smallest

FLOATS = st.floats(width=32, allow_nan=False)


@given(rows=st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=40), data=st.data())
def test_equals_sorting_of_the_parts_together(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    values = torch.tensor(rows, dtype=torch.float32).mT
    rank = data.draw(st.integers(1, len(rows)))
    cut = data.draw(st.integers(0, len(rows)))
    parts = [values[:, :cut], values[:, cut:]]
    found = kth_smallest(lambda: parts, rank)
    expected = np.sort(values.numpy(), axis=1)[:, rank - 1]
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("rank", [1, 2, 500, 999, 1000])
def test_many_equal_values(rank: int) -> None:
    values = torch.tensor([-1.5, 0.0, 0.0, 2.0, 2.0]).repeat(200).view(1, -1)
    expected = values.sort(dim=1).values[:, rank - 1]
    assert torch.equal(kth_smallest(lambda: [values], rank), expected)
