"""LOT Merging against least squares on the inputs themselves, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import Evidence
from statsmerging.merging.methods.checks import TASKS
from statsmerging.merging.methods.lot import Lot, closest_matrix, closest_scale
from statsmerging.merging.methods.regmean import RegMean
from tests.merging.methods.reference import Array, as_matrix, task_vectors, updates

States = dict[str, dict[str, Tensor]]


def least_squares(matrices: Array, inputs: list[Array]) -> Array:
    """The matrix of least norm among those closest to all experts' outputs on their inputs."""
    rows = np.concatenate(inputs)
    outputs = np.concatenate([x @ matrix.T for x, matrix in zip(inputs, matrices, strict=True)])
    solution: Array = np.linalg.lstsq(rows, outputs, rcond=1e-6)[0].T
    return solution


def squares_of_biases() -> dict[str, Tensor]:
    """Mean squares of what a scale would multiply, one for each task; an entry is never active."""
    generator = torch.Generator().manual_seed(7)
    squares = {task: torch.rand(6, generator=generator) for task in TASKS}
    for square in squares.values():
        square[2] = 0
    return squares


def test_lot(bank: TaskVectorBank, inputs: Evidence, grams: Evidence) -> None:
    squares = squares_of_biases()
    evidence = {task: {**grams[task], "bias": squares[task]} for task in TASKS}
    found = updates(bank, Lot(scale=0.7).merge(bank, evidence))
    for name, vectors in task_vectors(bank).items():
        if name in inputs["svhn"]:
            seen = [inputs[task][name].double().numpy() for task in TASKS]
            flat = np.stack([as_matrix(vector) for vector in vectors])
            expected = least_squares(flat, seen).reshape(vectors.shape[1:])
        elif name == "bias":
            expected = np.zeros(vectors.shape[1:])
            for entry in range(6):
                weights = [float(squares[task][entry]) for task in TASKS]
                if sum(weights):
                    expected[entry] = np.average(vectors[:, entry], weights=weights)
        else:
            expected = vectors.mean(axis=0)
        np.testing.assert_allclose(found[name], 0.7 * expected, atol=1e-6)


def in_a_subspace(seed: int, directions: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(directions, 12, generator=generator)
    return torch.randn(40, directions, generator=generator) @ basis


@pytest.mark.parametrize("shared", [False, True])
def test_directions_without_inputs_stay_pretrained(shared: bool) -> None:
    """Few images: inputs of each expert span 3 of 12 directions, the same or others."""
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 7, 12, generator=generator)
    inputs = [in_a_subspace(0 if shared else seed, 3) for seed in range(3)]
    found = closest_matrix(matrices, [x.mT @ x / len(x) for x in inputs])
    expected = least_squares(matrices.double().numpy(), [x.double().numpy() for x in inputs])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    outside = torch.linalg.svd(torch.cat(inputs))[2][3 if shared else 9 :]
    assert (found @ outside.mT).abs().max() < 1e-4
    if not shared:  # the inputs do not meet: every expert's outputs come back
        for x, matrix in zip(inputs, matrices, strict=True):
            torch.testing.assert_close(x @ found.mT, x @ matrix.mT, rtol=0, atol=1e-3)


def test_one_expert_comes_back_on_its_images(
    pretrained: dict[str, Tensor], experts: States, bank: TaskVectorBank
) -> None:
    one = TaskVectorBank.from_state_dicts(pretrained, {"svhn": experts["svhn"]})
    inputs = in_a_subspace(3, 5)
    evidence = {"svhn": {"linear": inputs.mT @ inputs / len(inputs)}}
    found, expert = Lot().merge(one, evidence), one.expert("svhn")
    assert (found["linear"] - expert["linear"]).abs().max() > 1e-2
    outputs = inputs @ found["linear"].mT, inputs @ expert["linear"].mT
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-4)
    for name in ("convolution", "bias", "token"):
        torch.testing.assert_close(found[name], expert[name], rtol=0, atol=1e-6)


def test_with_inputs_in_all_directions_it_is_regmean(bank: TaskVectorBank, grams: Evidence) -> None:
    found, regmean = Lot().merge(bank, grams), RegMean(off_diagonal=1.0).merge(bank, grams)
    for name in bank.layers:
        torch.testing.assert_close(found[name], regmean[name], rtol=0, atol=1e-5)


def test_inputs_that_are_all_zero_leave_the_layer_pretrained() -> None:
    matrices = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert not closest_matrix(matrices, [torch.zeros(4, 4)] * 2).any()
    assert not closest_scale(matrices[:, 0], [torch.zeros(4)] * 2).any()


def test_evidence_of_another_shape_is_refused(bank: TaskVectorBank, grams: Evidence) -> None:
    wrong = {task: {**grams[task], "bias": torch.eye(6)} for task in TASKS}
    with pytest.raises(MergingError, match=r"'bias': evidence for task mnist has shape \(6, 6\)"):
        Lot().merge(bank, wrong)
