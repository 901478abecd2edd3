"""Singular Value Calibration against loops in float64, and what it promises."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import method_named
from statsmerging.merging.methods.base import DataFreeMethod
from statsmerging.merging.methods.svc import Calibrated, Svc, calibrated
from tests.merging.methods.reference import Array, task_vectors, updates


def svc_reference(merged: Array, tasks: Array, alpha: float) -> Array:
    """One direction and one task after the other."""
    left, values, right = np.linalg.svd(merged, full_matrices=False)
    result = np.zeros_like(merged)
    for u, value, v in zip(left.T, values, right, strict=True):
        total = 0.0
        for task in tasks:
            response = u @ task
            total += max(alpha, (u @ merged) @ response / (response @ response))
        result += len(tasks) / total * value * np.outer(u, v)
    return result


@pytest.mark.parametrize("base", get_args(Calibrated))
@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_svc_calibrates_matrices_and_leaves_the_rest_of_the_base(
    bank: TaskVectorBank, base: Calibrated, alpha: float
) -> None:
    method = method_named(base)
    assert isinstance(method, DataFreeMethod)
    before = updates(bank, method.merge(bank))
    found = updates(bank, Svc(base=base, alpha=alpha).merge(bank))
    for name, vectors in task_vectors(bank).items():
        expected = before[name]
        if name == "linear":
            expected = svc_reference(before[name], vectors, alpha)
            assert not np.allclose(expected, before[name], atol=1e-3) or alpha == 1.0
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_what_all_tasks_share_is_counted_once() -> None:
    """The sum of K copies is K times too large in every direction."""
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    copies = matrix.expand(4, 5, 7)
    torch.testing.assert_close(calibrated(copies.sum(dim=0), copies, 1.0), matrix)
    # Too small by any factor: 1 does not enlarge, a smaller alpha does.
    torch.testing.assert_close(calibrated(0.2 * matrix, copies, 1.0), 0.2 * matrix)
    torch.testing.assert_close(calibrated(0.2 * matrix, copies, 0.1), matrix)


def test_alpha_of_one_enlarges_no_singular_value(bank: TaskVectorBank) -> None:
    tasks = bank.vectors["linear"].view(3, 7, 12)
    left, values, right = torch.linalg.svd(tasks.sum(dim=0), full_matrices=False)
    found = calibrated(tasks.sum(dim=0), tasks, 1.0)
    after = (left.mT @ found @ right.mT).diagonal()
    assert (after <= values + 1e-6).all()
    assert (after < 0.9 * values).any()
    # The directions stay.
    torch.testing.assert_close(left * after @ right, found, rtol=0, atol=1e-6)


def test_a_task_with_nothing_in_a_direction_counts_as_alpha() -> None:
    tasks = torch.zeros(2, 3, 3)
    tasks[0, 0, 0], tasks[1, 1, 1] = 2.0, 1.0
    found = calibrated(tasks.sum(dim=0), tasks, 0.5)
    # s is 1 for the task that has the direction and 0.5 for the other: γ = 2 / 1.5.
    torch.testing.assert_close(found, tasks.sum(dim=0) * 2 / 1.5)


def test_embeddings_stay_as_they_were_merged() -> None:
    generator = torch.Generator().manual_seed(0)
    names = ("positional_embedding", "text_projection", "blocks.0.mlp.fc1.weight")
    start = {name: torch.randn(6, 5, generator=generator) for name in names}
    experts = {
        task: {name: x + torch.randn(6, 5, generator=generator) for name, x in start.items()}
        for task in "abcde"
    }
    bank = TaskVectorBank.from_state_dicts(start, experts)
    base = method_named("task_arithmetic")
    assert isinstance(base, DataFreeMethod)
    before, found = base.merge(bank), Svc(alpha=0.1).merge(bank)
    same = {name for name in names if torch.allclose(found[name], before[name], atol=1e-5)}
    assert same == set(names[:2])


def test_a_base_without_directions_of_its_own_is_no_choice() -> None:
    with pytest.raises(MergingError, match=r"svc\.base=iso_c: must be one of task_arithmetic, "):
        method_named("svc", base="iso_c")


def test_a_row_names_the_method_that_merges_first() -> None:
    assert Svc().heading == "SVC (Task arithmetic)"
    assert Svc(base="dare_ties").heading == "SVC (DARE + TIES)"
    assert method_named("emr").heading == "EMR-Merging"
