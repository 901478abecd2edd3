"""DOGE against float64 autograd, and what its parts promise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.doge import Doge, conflict_change, shared_directions
from tests.merging.methods.reference import (
    Array,
    as_matrix,
    flat_task_vectors,
    task_vectors,
    updates,
)

MATRICES = ("linear", "convolution")

#: Of three tasks without rounding.
NO_NOISE = torch.zeros(3)


def doge_reference(matrices: list[Array], thresholds: list[float]) -> Array:
    """η = 0.7, two directions in S, 40 steps of 1e-3."""
    lefts = [np.linalg.svd(matrix)[0][:, :2] for matrix in matrices]
    shared = torch.from_numpy(np.linalg.svd(np.hstack(lefts))[0][:, :2].copy())
    tasks = torch.from_numpy(np.stack(matrices))
    factors = [0.7 / task.square().sum().sqrt() for task in tasks]
    change = torch.zeros_like(tasks[0], requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        conflicts(tasks, factors, change).backward()
        assert change.grad is not None
        change.grad -= shared @ shared.mT @ change.grad
        optimizer.step()
    merged = torch.zeros_like(tasks[0])
    for task, factor, threshold in zip(tasks, factors, thresholds, strict=True):
        merged += factor * (task + change.detach()) * (task.abs() >= threshold)
    return merged.numpy()


def conflicts(tasks: Tensor, factors: list[Tensor], change: Tensor) -> Tensor:
    merged = sum(factor * (task + change) for factor, task in zip(factors, tasks, strict=True))
    return torch.stack([((task * (task - merged)).sum(1) ** 2).sum() for task in tasks]).sum()


def test_doge_gives_matrices_the_formula_and_vectors_the_mean(bank: TaskVectorBank) -> None:
    method = Doge(eta=0.7, subspace=3, steps=40, learning_rate=1e-3, all_tensors=True)
    flat = np.sort(np.abs(flat_task_vectors(bank)), axis=1)
    thresholds = [float(row[len(row) - round(0.3 * len(row))]) for row in flat]
    found = updates(bank, method.merge(bank))
    for name, vectors in task_vectors(bank).items():
        if name in MATRICES:
            expected = doge_reference([as_matrix(vector) for vector in vectors], thresholds)
            np.testing.assert_allclose(as_matrix(found[name]), expected, atol=2e-5)
        else:
            np.testing.assert_allclose(found[name], vectors.mean(0), atol=1e-6)


def test_doge_lowers_the_conflicts_and_more_so_outside_of_a_smaller_subspace(
    bank: TaskVectorBank,
) -> None:
    tasks = bank.vectors["linear"].view(3, 7, 12)
    factors = [0.7 / task.norm() for task in tasks]

    def left_over(subspace: int) -> Tensor:
        shared = shared_directions(tasks, NO_NOISE, subspace)
        change = conflict_change(tasks, torch.stack(factors), shared, 2000, 1e-3)
        return conflicts(tasks, factors, change)

    before = conflicts(tasks, factors, torch.zeros(7, 12))
    assert before > left_over(2) > left_over(7)
    assert left_over(8) < 1e-3 * before  # no subspace: a row has 12 entries for 3 conditions


def test_doge_with_a_task_that_left_the_layer_as_it_was() -> None:
    """As if the task were not there, but for the directions that each task gives S."""
    tasks = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    tasks[1] = 0
    state = {f"t{k}": {"w": task} for k, task in enumerate(tasks)}
    others = {name: state[name] for name in ("t0", "t2")}
    found, expected = (
        Doge(subspace=7, density=1.0).merge(
            TaskVectorBank.from_state_dicts({"w": torch.zeros(6, 8)}, experts)
        )["w"]
        for experts in (state, others)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
