"""ESM against the formula of its released code, from PCA of the outputs themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.esm import Esm
from tests.merging.methods.reference import Array, task_vectors, tsv_reference, updates

SHAPES = {
    "blocks.0.attn.qkv.weight": (12, 5),
    "blocks.0.mlp.fc2.weight": (5, 12),
    "blocks.1.attn.qkv.weight": (12, 5),
    "blocks.1.mlp.fc2.weight": (5, 12),
    "head.weight": (6, 8),
    "blocks.1.norm.bias": (5,),
}

TASKS = ("one", "two", "three")


def normal(seed: int, scale: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def bank() -> TaskVectorBank:
    start = normal(0, 0.2)
    changes = [normal(k, 0.05 * k) for k in (1, 2, 3)]
    experts = {
        task: {name: value + change[name] for name, value in start.items()}
        for task, change in zip(TASKS, changes, strict=True)
    }
    return TaskVectorBank.from_state_dicts(start, experts)


@pytest.fixture
def inputs() -> dict[str, dict[str, Tensor]]:
    """Inputs of the blocks' matrices, N × n, of unequal variances."""
    found: dict[str, dict[str, Tensor]] = {}
    for k, task in enumerate(TASKS):
        generator = torch.Generator().manual_seed(40 + k)
        found[task] = {
            name: torch.randn(50, shape[1], generator=generator) * torch.arange(1, 1 + shape[1])
            for name, shape in SHAPES.items()
            if name.startswith("blocks") and len(shape) == 2
        }
    return found


def even(matrix: Array) -> Array:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    there = values > 1e-9
    result: Array = values[there].mean() * left[:, there] @ right[there]
    return result


def esm_reference(matrices: list[Array], inputs: list[Array], power: float, w: float) -> Array:
    rank = min(len(matrices[0]) // len(matrices), matrices[0].shape[1])
    norms = [np.linalg.norm(matrix) for matrix in matrices]
    lefts, rights = [], []
    for matrix, x, norm in zip(matrices, inputs, norms, strict=True):
        _, values, directions = np.linalg.svd(x @ matrix.T, full_matrices=False)
        energies, left = values[:rank] ** 2 / (len(x) - 1), directions[:rank].T
        weights = (energies / energies.mean()) ** w
        weights /= weights.mean()
        lefts.append(left * weights)
        rights.append((left.T @ matrix) * weights[:, None] * norm**power)
    right = np.vstack(rights) / np.mean(norms) ** power
    columns = np.linalg.norm(right, axis=0)
    right = right * (columns / columns.mean()) ** power
    merged: Array = 2 * even(np.hstack(lefts)) @ even(right)
    return merged


def grams(inputs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    return {
        task: {name: x.mT @ x / len(x) for name, x in of_task.items()}
        for task, of_task in inputs.items()
    }


@pytest.mark.parametrize(("power", "weighting"), [(2.0, 0.15), (1.0, 0.0), (0.0, 0.5)])
def test_esm(
    bank: TaskVectorBank, inputs: dict[str, dict[str, Tensor]], power: float, weighting: float
) -> None:
    found = updates(bank, Esm(power, weighting, scale=0.7).merge(bank, grams(inputs)))
    expected: dict[str, Array] = {}
    for name, vectors in task_vectors(bank).items():
        if name == "head.weight":
            expected[name] = tsv_reference(list(vectors))
        elif name not in inputs["one"]:
            expected[name] = vectors.mean(0)
        else:
            seen = [inputs[task][name].double().numpy() for task in TASKS]
            expected[name] = esm_reference(list(vectors), seen, power, weighting)
    for kind in ("attn.qkv.weight", "mlp.fc2.weight"):
        pair = [f"blocks.{block}.{kind}" for block in (0, 1)]
        mean = np.mean([np.linalg.norm(expected[name]) for name in pair])
        for name in pair:
            expected[name] = expected[name] * (np.linalg.norm(expected[name]) / mean) ** power
    for name, update in expected.items():
        np.testing.assert_allclose(found[name], 0.7 * update, atol=1e-4, err_msg=name)


def test_directions_that_no_expert_has_are_not_filled(
    bank: TaskVectorBank, inputs: dict[str, dict[str, Tensor]]
) -> None:
    """Each task keeps up to four directions of a layer, and has one."""
    name = "blocks.0.attn.qkv.weight"
    generator = torch.Generator().manual_seed(9)
    ones = torch.randn(3, 12, 1, generator=generator) @ torch.randn(3, 1, 5, generator=generator)
    bank.vectors[name] = 0.05 * ones.flatten(1)
    update = updates(bank, Esm().merge(bank, grams(inputs)))[name]
    assert np.linalg.matrix_rank(update, tol=1e-4 * np.linalg.norm(update)) == 3


def test_an_expert_without_a_change_of_a_layer_leaves_it_to_the_others(
    bank: TaskVectorBank, inputs: dict[str, dict[str, Tensor]]
) -> None:
    name = "blocks.0.mlp.fc2.weight"
    bank.vectors[name][1:] = 0
    update = updates(bank, Esm(power=0.0).merge(bank, grams(inputs)))[name]
    assert np.isfinite(update).all()
    assert np.linalg.matrix_rank(update, tol=1e-4) == 1  # ⌊5 / 3⌋ direction of the first
    bank.vectors[name][:] = 0
    assert not updates(bank, Esm().merge(bank, grams(inputs)))[name].any()
