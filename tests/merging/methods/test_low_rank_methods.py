"""Methods for low-rank (LoRA) task matrices, and what rounding leaves of low ranks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import DataFreeMethod, method_named
from statsmerging.merging.methods.core_space import CoreSpace, shared_bases
from statsmerging.merging.methods.iso import IsoC, IsoCts
from statsmerging.merging.methods.knots import Knots
from statsmerging.merging.methods.tsv_m import TsvM
from tests.merging.methods.reference import (
    Array,
    as_matrix,
    flat_update,
    polar,
    task_vectors,
    ties_reference,
    tsv_reference,
    updates,
)

SIZE, TASKS, RANK = 64, 4, 3


def low_rank_changes() -> Tensor:
    """Task matrices of rank 3, as small beside the weights below as those of LoRA, 4 × 64 × 64."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(TASKS, SIZE, RANK, generator=generator, dtype=torch.float64)
    return 1e-4 * left @ torch.randn(TASKS, RANK, SIZE, generator=generator, dtype=torch.float64)


def stored_bank(changes: Tensor, start: Tensor, dtype: torch.dtype) -> TaskVectorBank:
    experts = {f"t{k}": {"w": (start + change).float()} for k, change in enumerate(changes)}
    return TaskVectorBank.from_state_dicts({"w": start.float()}, experts, dtype=dtype)


LOW_RANK_METHODS: list[tuple[DataFreeMethod, Callable[[list[Array]], Array]]] = [
    (TsvM(), lambda matrices: cut_reference(matrices)),
    (IsoC(), lambda matrices: flat_reference(matrices)),
    (IsoCts(), lambda matrices: flat_reference(matrices)),
]


def cut_reference(matrices: list[Array]) -> Array:
    """TSV-M's formula with the three triples that there are."""
    parts = [np.linalg.svd(matrix) for matrix in matrices]
    lefts = np.hstack([left[:, :RANK] for left, _, _ in parts])
    rights = np.vstack([right[:RANK] for _, _, right in parts])
    values = np.concatenate([values[:RANK] for _, values, _ in parts])
    merged: Array = polar(lefts) @ np.diag(values) @ polar(rights)
    return merged


def flat_reference(matrices: list[Array]) -> Array:
    """A flat spectrum over the twelve directions of the sum; nothing is left to single tasks."""
    left, values, right = np.linalg.svd(sum(matrices, np.zeros(())))
    rank = TASKS * RANK
    merged: Array = values[:rank].mean() * left[:, :rank] @ right[:rank]
    return merged


@pytest.mark.parametrize("case", LOW_RANK_METHODS, ids=lambda case: case[0].name)
@pytest.mark.parametrize("stored", ["exact", "beside large weights", "bfloat16"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_rounding_makes_no_directions(
    case: tuple[DataFreeMethod, Callable[[list[Array]], Array]], stored: str, order: list[int]
) -> None:
    method, reference = case
    changes = low_rank_changes()
    start = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    if stored == "beside large weights":
        start = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()
    dtype = torch.bfloat16 if stored == "bfloat16" else torch.float32
    bank = stored_bank(changes[order], start, dtype)
    found = (method.merge(bank)["w"].double() - start.float().double()).numpy()
    expected = reference([change.numpy() for change in changes])
    tolerance = {"exact": 1e-4, "beside large weights": 1e-2, "bfloat16": 2e-2}[stored]
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


def knots_reference(bank: TaskVectorBank, density: float, rank: int | None = None) -> Array:
    """All layers one after the other, by one SVD of the concatenated task matrices each."""
    bases: list[Array] = []
    parts: list[Array] = []
    for vectors in task_vectors(bank).values():
        basis, rotated = np.eye(1), vectors.reshape(len(vectors), 1, -1)
        if min(as_matrix(vectors[0]).shape) > 1:
            matrices = [as_matrix(vector) for vector in vectors]
            left, values, right = np.linalg.svd(np.hstack(matrices), full_matrices=False)
            basis, right = left[:, :rank], (np.diag(values) @ right)[:rank]
            rotated = np.stack(np.split(right, len(vectors), axis=1))
        bases.append(basis)
        parts.append(rotated)
    flat = np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    merged = ties_reference(flat, density, 1.0)
    ends = np.cumsum([part[0].size for part in parts])
    pieces = np.split(merged, ends[:-1])
    return np.concatenate(
        [
            (basis @ piece.reshape(part[0].shape)).ravel()
            for basis, part, piece in zip(bases, parts, pieces, strict=True)
        ]
    )


@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
def test_knots_is_ties_in_the_joint_basis(bank: TaskVectorBank, density: float) -> None:
    found = flat_update(bank, Knots(density, scale=0.7).merge(bank))
    expected = 0.7 * knots_reference(bank, density)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_knots_counts_the_entries_of_the_basis_alone() -> None:
    """Twelve directions in 64: a fifth of their entries stays, not a fifth of the matrix's."""
    bank = stored_bank(low_rank_changes(), torch.zeros(SIZE, SIZE), torch.float32)
    found = flat_update(bank, Knots(density=0.2, scale=1.0).merge(bank))
    expected = knots_reference(bank, 0.2, TASKS * RANK)
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
    assert np.linalg.norm(found - knots_reference(bank, 0.2)) > 0.1 * np.linalg.norm(expected)


def test_knots_of_experts_that_differ_by_rounding_alone_is_the_pretrained_model() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(SIZE, SIZE, generator=generator)
    towards = [start + torch.randn(SIZE, SIZE, generator=generator) for _ in range(2)]
    experts = {str(k): {"w": torch.nextafter(start, aim)} for k, aim in enumerate(towards)}
    bank = TaskVectorBank.from_state_dicts({"w": start}, experts)
    assert torch.equal(Knots(scale=1.0).merge(bank)["w"], start)


def core_reference(matrices: list[Array], rank: int, how: str, isotropic: bool) -> Array:
    """The paper's formula on the factors B_k A_k, with bases from the SVDs of the stacked ones."""
    factors = []
    for matrix in matrices:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        root = np.diag(np.sqrt(values[:rank]))
        factors.append((left[:, :rank] @ root, root @ right[:rank]))
    columns = np.linalg.svd(np.hstack([up for up, _ in factors]), full_matrices=False)[0]
    rows = np.linalg.svd(np.vstack([down for _, down in factors]), full_matrices=False)[2]
    cores = [columns.T @ up @ down @ rows.T for up, down in factors]
    merged: Array = tsv_reference(cores) if how == "tsv_m" else sum(cores, np.zeros(()))
    if isotropic:
        values = np.linalg.svd(merged, compute_uv=False)
        merged = values[: len(matrices) * rank].mean() * polar(merged)
    update: Array = columns @ merged @ rows
    return update


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("how", ["tsv_m", "task_arithmetic"])
@pytest.mark.parametrize("large_weights", [False, True])
def test_cores_are_merged_by_the_formula(how: str, isotropic: bool, large_weights: bool) -> None:
    changes = low_rank_changes()
    start = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    if large_weights:
        start = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()
    bank = stored_bank(changes, start, torch.float32)
    method = method_named("core_space", merge_cores=how, isotropic=isotropic, scale=0.7)
    assert isinstance(method, CoreSpace)
    found = (method.merge(bank)["w"].double() - start.float().double()).numpy()
    expected = 0.7 * core_reference([change.numpy() for change in changes], RANK, how, isotropic)
    tolerance = 1e-2 if large_weights else 1e-4
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("how", ["tsv_m", "task_arithmetic"])
def test_cores_of_full_rank_are_the_matrices(
    bank: TaskVectorBank, how: str, isotropic: bool
) -> None:
    method = method_named("core_space", merge_cores=how, isotropic=isotropic)
    assert isinstance(method, CoreSpace)
    found = updates(bank, method.merge(bank))["linear"]
    matrices = list(task_vectors(bank)["linear"])
    expected = tsv_reference(matrices) if how == "tsv_m" else sum(matrices, np.zeros(()))
    if isotropic:
        left, values, right = np.linalg.svd(expected, full_matrices=False)
        rank = int((values > 1e-6 * values[0]).sum())  # TSV-M keeps 3 · 2 of 7 directions
        expected = values[:rank].mean() * left[:, :rank] @ right[:rank]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_core_is_as_small_as_the_ranks_together() -> None:
    changes = low_rank_changes().float()
    noise = torch.full((TASKS,), 1e-9)
    left, right = shared_bases(changes[:, :, :8], noise)
    assert left is not None
    assert left.shape == (SIZE, TASKS * RANK)
    assert right is None  # eight rows are fewer than twelve directions
    torch.testing.assert_close(left @ (left.mT @ changes), changes, rtol=0, atol=1e-8)
    nothing = shared_bases(torch.zeros(2, 5, 6), torch.zeros(2))
    assert [basis.shape for basis in nothing if basis is not None] == [(5, 0), (6, 0)]


def test_core_space_of_equal_experts_keeps_their_rank() -> None:
    """Their shared space has 3 directions; each task keeps its 3, not a share of them."""
    changes = low_rank_changes()[:1].expand(TASKS, SIZE, SIZE)
    bank = stored_bank(changes, torch.zeros(SIZE, SIZE, dtype=torch.float64), torch.float32)
    merged = CoreSpace(isotropic=False).merge(bank)["w"]
    torch.testing.assert_close(merged.double(), changes[0], rtol=0, atol=1e-7)
