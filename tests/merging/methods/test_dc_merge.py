"""DC-Merge against float64 linear algebra, and the cases in which its result is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.dc_merge import (
    DcMerge,
    Smoothing,
    elected_core,
    merge_directions,
    smoothed,
)
from tests.merging.methods.reference import (
    Array,
    as_matrix,
    polar,
    task_vectors,
    ties_reference,
    updates,
)

MATRICES = ("linear", "convolution")


def dc_reference(matrices: list[Array], density: float, smoothing: Smoothing) -> Array:
    rank = min(matrices[0].shape) // len(matrices)
    truncated, lefts, rights = [], [], []
    for matrix in matrices:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
        if smoothing == "average":
            values = np.full(rank, values.mean())
        if smoothing == "linear":
            shape = np.linspace(min(1.1, values[0] / values[-1]), 1, rank)
            values = values.sum() * shape / shape.sum()
        truncated.append(left @ np.diag(values) @ right)
        lefts.append(left)
        rights.append(right)
    left, right = polar(np.hstack(lefts)), polar(np.vstack(rights))
    cores = np.stack([(left.T @ matrix @ right.T).ravel() for matrix in truncated])
    merged = ties_reference(cores, density, 1.0).reshape(left.shape[1], -1)
    for row in range(len(merged)):
        for column in range(len(merged)):
            if row // rank != column // rank:
                merged[row, column] = 0
    result: Array = left @ merged @ right
    return result


@pytest.mark.parametrize("smoothing", ["none", "average", "linear"])
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_dc_merge_gives_matrices_the_formula_and_vectors_the_mean(
    bank: TaskVectorBank, smoothing: Smoothing, density: float
) -> None:
    method = DcMerge(
        density=density, smoothing=smoothing, ratio=1.1, scale=0.7, flatten_convolutions=True
    )
    found = updates(bank, method.merge(bank))
    for name, vectors in task_vectors(bank).items():
        if name in MATRICES:
            expected = dc_reference([as_matrix(vector) for vector in vectors], density, smoothing)
            np.testing.assert_allclose(as_matrix(found[name]), 0.7 * expected, atol=2e-5)
        else:
            np.testing.assert_allclose(found[name], 0.7 * vectors.mean(0), atol=1e-6)


def test_tasks_that_share_no_direction_are_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(8, 6, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(7, 6, generator=generator))
    values = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 0.5])
    parts = [left[:, i : i + 2] * values[i : i + 2] @ right[:, i : i + 2].mT for i in (0, 2, 4)]
    tasks, noise = torch.stack(parts), torch.full((3,), 1e-4)
    # Two of the 36 entries of a core are not 0.
    found = merge_directions(tasks, noise, 2 / 36, "none", 5.0)
    torch.testing.assert_close(found, tasks.sum(dim=0), rtol=0, atol=1e-5)
    # Of 36 entries of each core, the largest alone: every task keeps its first triple.
    first = left[:, ::2] * values[::2] @ right[:, ::2].mT
    found = merge_directions(tasks, noise, 1 / 36, "none", 5.0)
    torch.testing.assert_close(found, first, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("smoothing", "ratio", "expected"),
    [
        ("none", 5.0, [6.0, 3.0, 0.0]),
        ("average", 5.0, [4.5, 4.5, 0.0]),
        ("linear", 5.0, [6.0, 3.0, 0.0]),  # their own ratio is 2
        ("linear", 1.25, [5.0, 4.0, 0.0]),
    ],
)
def test_smoothing_keeps_the_sum_and_leaves_what_is_not_there(
    smoothing: Smoothing, ratio: float, expected: list[float]
) -> None:
    found = smoothed(torch.tensor([6.0, 3.0, 0.0]), smoothing, ratio)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_every_core_is_trimmed_on_its_own() -> None:
    """A task with small entries keeps as many of them as one with large entries."""
    cores = torch.tensor([[[9.0, 1.0], [8.0, -7.0]], [[0.3, 0.1], [0.1, 0.2]]])
    expected = torch.tensor([[9.3 / 2, 0.0], [8.0, 0.2]])
    torch.testing.assert_close(elected_core(cores, 0.5), expected)


def test_an_expert_that_left_the_layer_as_it_was_adds_no_direction() -> None:
    matrix = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    tasks = torch.stack([matrix, torch.zeros_like(matrix)])
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    expected = left[:, :3] * values[:3] @ right[:3]  # each of two tasks has three of six
    found = merge_directions(tasks, torch.full((2,), 1e-4), 1.0, "average", 5.0)
    flat = left[:, :3] * values[:3].mean() @ right[:3]
    torch.testing.assert_close(found, flat, rtol=0, atol=1e-5)
    found = merge_directions(tasks, torch.full((2,), 1e-4), 1.0, "none", 5.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
