"""Methods that treat a layer as a matrix, against float64 linear algebra and its theorems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import DataFreeMethod
from statsmerging.merging.methods.cart import Cart
from statsmerging.merging.methods.doge import Doge
from statsmerging.merging.methods.iso import IsoC, IsoCts, flatten_spectrum, merge_subspaces
from statsmerging.merging.methods.tsv_m import TsvM, merge_singular_vectors
from statsmerging.merging.methods.wudi import Wudi, reduce_interference
from tests.merging.methods.reference import (
    Array,
    as_matrix,
    polar,
    task_vectors,
    tsv_reference,
    updates,
)

MATRICES = ("linear", "convolution")

#: Of three tasks without rounding.
NO_NOISE = torch.zeros(3)


def iso_reference(matrices: list[Array]) -> Array:
    left, values, right = np.linalg.svd(sum(matrices, np.zeros(())), full_matrices=False)
    merged: Array = left @ np.diag(np.full(len(values), values.mean())) @ right
    return merged


def iso_cts_reference(matrices: list[Array]) -> Array:
    """At a common share of 0.5 and K = 3: 7 directions are 4 + 3 · 1, 6 are 3 + 3 · 1."""
    common = {7: 4, 6: 3}[min(matrices[0].shape)]
    left, values, right = np.linalg.svd(sum(matrices, np.zeros(())), full_matrices=False)
    lefts, spectrum, rights = [left[:, :common]], list(values[:common]), [right[:common]]
    projector = left[:, :common] @ left[:, :common].T
    for matrix in matrices:
        left, values, right = np.linalg.svd(matrix - projector @ matrix, full_matrices=False)
        lefts.append(left[:, :1])
        spectrum.append(values[0])
        rights.append(right[:1])
    merged: Array = np.mean(spectrum) * polar(np.hstack(lefts)) @ polar(np.vstack(rights))
    return merged


def wudi_reference(matrices: list[Array]) -> Array:
    tasks = torch.from_numpy(np.stack(matrices))
    merged = tasks.sum(0).requires_grad_()
    optimizer = torch.optim.Adam([merged], lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        interference(merged, tasks).backward()
        optimizer.step()
    return merged.detach().numpy()


def interference(merged: Tensor, tasks: Tensor) -> Tensor:
    losses = [((merged - task) @ task.mT).square().sum() / task.square().sum() for task in tasks]
    return torch.stack(losses).sum()


@pytest.mark.parametrize(
    ("method", "scale", "reference"),
    [
        (TsvM(scale=0.7, flatten_convolutions=True), 0.7, tsv_reference),
        (IsoC(scale=0.7, flatten_convolutions=True), 0.7, iso_reference),
        (
            IsoCts(common_share=0.5, scale=0.7, flatten_convolutions=True),
            0.7,
            iso_cts_reference,
        ),
        (Wudi(steps=40, learning_rate=1e-3, all_tensors=True), 1.0, wudi_reference),
    ],
    ids=["tsv_m", "iso_c", "iso_cts", "wudi"],
)
def test_matrices_get_the_formula_and_vectors_the_mean(
    bank: TaskVectorBank,
    method: DataFreeMethod,
    scale: float,
    reference: Callable[[list[Array]], Array],
) -> None:
    found = updates(bank, method.merge(bank))
    for name, vectors in task_vectors(bank).items():
        if name in MATRICES:
            expected = reference([as_matrix(vector) for vector in vectors])
            np.testing.assert_allclose(as_matrix(found[name]), scale * expected, atol=2e-5)
        else:
            np.testing.assert_allclose(found[name], scale * vectors.mean(0), atol=1e-6)


def orthogonal_tasks() -> Tensor:
    """Three task matrices of rank 2 whose row spaces and column spaces are orthogonal."""
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(8, 6, generator=generator, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(7, 6, generator=generator, dtype=torch.float64))
    values = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    return torch.stack(
        [left[:, i : i + 2] * values[i : i + 2] @ right[:, i : i + 2].mT for i in range(0, 6, 2)]
    ).float()


def test_tasks_that_do_not_interfere_are_summed_by_tsv_and_wudi() -> None:
    tasks = orthogonal_tasks()
    torch.testing.assert_close(
        merge_singular_vectors(tasks, NO_NOISE), tasks.sum(0), rtol=0, atol=1e-5
    )
    found = reduce_interference(tasks, steps=50, learning_rate=1e-5)
    torch.testing.assert_close(found, tasks.sum(0), rtol=0, atol=5e-4)


def test_iso_spectra_are_flat(bank: TaskVectorBank) -> None:
    tasks = bank.vectors["linear"].view(3, 7, 12)
    summed = torch.linalg.svdvals(tasks.sum(0))
    torch.testing.assert_close(
        torch.linalg.svdvals(flatten_spectrum(tasks, NO_NOISE)), summed.mean().expand(7)
    )
    values = torch.linalg.svdvals(merge_subspaces(tasks, NO_NOISE, 0.5))
    # Orthogonal factors of full rank leave one value for all; its size is not the sum's.
    torch.testing.assert_close(values, values.mean().expand(7))
    assert not torch.isclose(values.mean(), summed.mean(), rtol=1e-3)


def test_iso_cts_with_everything_common_is_iso_c(bank: TaskVectorBank) -> None:
    merged, expected = IsoCts(common_share=1.0).merge(bank), IsoC().merge(bank)
    for name in bank.layers:
        torch.testing.assert_close(merged[name], expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("common_share", [0.0, 0.5, 0.8])
def test_more_tasks_than_directions(common_share: float) -> None:
    # Five directions for nine tasks: rounding up must not promise more than there are.
    tasks = torch.randn(9, 5, 6, generator=torch.Generator().manual_seed(0))
    noise = torch.zeros(9)
    assert merge_singular_vectors(tasks, noise).norm() > 0
    torch.testing.assert_close(
        merge_subspaces(tasks, noise, common_share), flatten_spectrum(tasks, noise)
    )


def test_wudi_lowers_the_interference_towards_its_minimum(bank: TaskVectorBank) -> None:
    tasks = bank.vectors["linear"].view(3, 7, 12)
    before = interference(tasks.sum(0), tasks)
    few = interference(reduce_interference(tasks, 20, 1e-3), tasks)
    many = interference(reduce_interference(tasks, 2000, 1e-3), tasks)
    energies = [task.mT @ task / task.square().sum() for task in tasks.double()]
    best = sum(t @ e for t, e in zip(tasks.double(), energies, strict=True)) @ torch.linalg.pinv(
        torch.stack(energies).sum(0)
    )
    minimum = interference(best, tasks.double())
    assert before > few > many
    torch.testing.assert_close(many.double(), minimum, rtol=1e-3, atol=1e-7)


def test_wudi_without_a_change_in_one_task() -> None:
    tasks = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    tasks[1] = 0
    torch.testing.assert_close(reduce_interference(tasks, 10, 1e-3), tasks[0])


def test_tsv_m_is_not_disturbed_by_what_is_not_there() -> None:
    """Columns that no expert changed, and an expert that left the layer as it was."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(12, 10, generator=generator)
    matrix[:, 4:] = 0
    noise = 1e-6 * matrix.norm().expand(2)
    torch.testing.assert_close(merge_singular_vectors(matrix.unsqueeze(0), noise[:1]), matrix)
    both = merge_singular_vectors(torch.stack([matrix, torch.zeros_like(matrix)]), noise)
    torch.testing.assert_close(both, matrix)  # of rank 4, and each keeps 5


@pytest.mark.parametrize("method", [TsvM(), IsoC(), IsoCts()], ids=lambda method: method.name)
def test_convolutions_are_averaged_as_in_the_released_codes(
    bank: TaskVectorBank, method: DataFreeMethod
) -> None:
    found = updates(bank, method.merge(bank))["convolution"]
    expected = task_vectors(bank)["convolution"].mean(0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("method", [Wudi(steps=3), Doge(steps=3)], ids=lambda method: method.name)
def test_matrices_of_attention_and_mlps_alone_are_merged(method: Wudi | Doge) -> None:
    """Position embeddings and projections are matrices too, and stay pre-trained."""
    generator = torch.Generator().manual_seed(0)
    names = ("blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight", "positional_embedding")
    start = {name: torch.randn(6, 5, generator=generator) for name in names}
    start["patch_embed.proj.weight"] = torch.randn(6, 3, 2, 2, generator=generator)
    start["blocks.0.mlp.fc1.bias"] = torch.randn(6, generator=generator)
    experts = {
        task: {
            name: value + 0.01 * torch.randn(value.shape, generator=generator)
            for name, value in start.items()
        }
        for task in "abc"
    }
    bank = TaskVectorBank.from_state_dicts(start, experts)
    merged = method.merge(bank)
    assert {name for name in start if not torch.equal(merged[name], start[name])} == set(names[:2])
    everything = replace(method, all_tensors=True).merge(bank)
    assert not any(torch.equal(everything[name], start[name]) for name in start)


@pytest.mark.parametrize("method", [Wudi(), Doge()], ids=lambda method: method.name)
def test_without_a_matrix_they_say_what_would_merge(method: DataFreeMethod) -> None:
    bank = TaskVectorBank.from_state_dicts({"bias": torch.zeros(3)}, {"a": {"bias": torch.ones(3)}})
    with pytest.raises(MergingError, match=f"{method.name}: .* all_tensors=true"):
        method.merge(bank)


@pytest.mark.parametrize(("share", "spread"), [(0.3, 1.0), (0.3, 0.5), (1.0, 1.4), (0.01, 1.0)])
def test_cart_truncates_what_differs_from_the_average(
    bank: TaskVectorBank, share: float, spread: float
) -> None:
    method = Cart(share=share, spread=spread, flatten_convolutions=True)
    found = updates(bank, method.merge(bank))
    for name, vectors in task_vectors(bank).items():
        expected = mean = vectors.mean(0)
        if name in MATRICES:
            expected = as_matrix(mean).copy()
            for vector in vectors:
                left, values, right = np.linalg.svd(as_matrix(vector - mean), full_matrices=False)
                rank = max(1, int(share * len(values)))
                expected += spread * (left[:, :rank] * values[:rank] @ right[:rank])
            expected = expected.reshape(mean.shape)
        np.testing.assert_allclose(found[name], expected, atol=2e-5)


def test_cart_of_whole_spectra_is_the_average(bank: TaskVectorBank) -> None:
    """Nothing is truncated then, and centred task vectors sum to zero."""
    found = updates(bank, Cart(share=1.0).merge(bank))
    for name, vectors in task_vectors(bank).items():
        np.testing.assert_allclose(found[name], vectors.mean(0), atol=2e-5)
