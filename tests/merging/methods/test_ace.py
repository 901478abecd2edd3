"""ACE-Merging against float64 linear algebra, and where it must do nothing surprising."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.ace import Ace, least_squares, size_variance
from tests.merging.methods.reference import Array, as_matrix, task_vectors, updates

MATRICES = ("linear", "convolution")

RIDGE, SHARE = 0.02, 0.4


def ace_reference(matrices: list[Array], *, heterogeneous: bool) -> Array:
    """Every product and inverse as the paper writes it; the tasks one after the other."""
    columns = matrices[0].shape[1]
    scaled, regular, centred = [], [], []
    for matrix in matrices:
        rows = matrix - np.ones((len(matrix), 1)) * matrix.mean(0)
        covariance = rows.T @ rows
        trace = np.trace(covariance) if heterogeneous else 1.0
        scaled.append(covariance / trace)
        regular.append(covariance / trace + RIDGE / trace * np.eye(columns))
        centred.append(rows)
    prior = np.ones((columns, 1)) @ (np.ones((1, columns)) @ sum(scaled, np.zeros(())) / columns)
    if heterogeneous:
        prior /= np.mean([np.sum(matrix**2) for matrix in matrices])
    products = sum((w @ s for w, s in zip(centred, regular, strict=True)), np.zeros(()))
    merged: Array = products @ np.linalg.inv(sum(regular, np.zeros(())) + prior)
    if not heterogeneous:
        return merged
    mean = np.mean(regular, axis=0)
    fused = merged + sum((w @ (s - mean) for w, s in zip(centred, scaled, strict=True)), 0 * merged)
    left, values, right = np.linalg.svd(fused, full_matrices=False)
    kept = int(SHARE * len(values))
    merged += values[:kept].mean() * left[:, :kept] @ right[:kept]
    return merged


@pytest.mark.parametrize("heterogeneous", [False, True])
def test_ace_gives_matrices_the_formula_and_vectors_the_mean(
    bank: TaskVectorBank, heterogeneous: bool
) -> None:
    threshold = 0.0 if heterogeneous else 1e9
    method = Ace(ridge=RIDGE, threshold=threshold, share=SHARE, flatten_convolutions=True)
    found = updates(bank, method.merge(bank))
    for name, vectors in task_vectors(bank).items():
        if name in MATRICES:
            tasks = [as_matrix(vector) for vector in vectors]
            expected = ace_reference(tasks, heterogeneous=heterogeneous)
            np.testing.assert_allclose(as_matrix(found[name]), expected, atol=2e-6)
        else:
            np.testing.assert_allclose(found[name], vectors.mean(0), atol=1e-6)


def test_tasks_with_inputs_of_their_own_keep_their_outputs_there() -> None:
    """Orthogonal inputs without a mean: every task's matrix acts on its own inputs alone."""
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randn(2, 6, 4, generator=generator)
    blocks -= blocks.mean(dim=1, keepdim=True)
    blocks -= blocks.mean(dim=2, keepdim=True)  # then C = 0
    tasks = torch.zeros(2, 6, 8)
    tasks[0, :, :4], tasks[1, :, 4:] = blocks
    merged = least_squares(tasks, 1e-9, 1e9, 0.3)
    torch.testing.assert_close(merged, tasks.sum(dim=0), rtol=0, atol=1e-4)


def test_a_large_ridge_averages_what_is_centred(bank: TaskVectorBank) -> None:
    tasks = bank.vectors["linear"].view(3, 7, 12)
    expected = (tasks - tasks.mean(dim=1, keepdim=True)).mean(dim=0)
    merged = least_squares(tasks, 1e6, 1e9, 0.3)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 1e9])
def test_an_expert_that_left_the_layer_as_it_was_does_not_count(threshold: float) -> None:
    tasks = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    tasks[1] = 0
    found, expected = (least_squares(some, 0.1, threshold, 0.5) for some in (tasks, tasks[[0, 2]]))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(least_squares(0 * tasks, 0.1, threshold, 0.5), torch.zeros(5, 6))


def test_a_single_expert_has_no_variance_and_a_finite_result() -> None:
    assert size_variance(torch.tensor([2.0])) == 0
    matrix: Tensor = torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(0))
    merged = least_squares(matrix, 1e-5, 0.0, 0.3)
    assert torch.isfinite(merged).all()
    # The inputs of one task explain its centred outputs up to the prior, which only shrinks.
    assert merged.norm() <= matrix.norm()
