"""Relations between experts against closed forms and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.relations import (
    CHUNK,
    layer_kind,
    place_statistics,
    relation_statistics,
    task_vector_cosines,
)


def bank_of(*vectors: list[float] | Tensor) -> TaskVectorBank:
    """One layer ``w``; expert k is ``vectors[k]`` away from zero."""
    states = {f"task{k}": {"w": torch.as_tensor(vector)} for k, vector in enumerate(vectors)}
    return TaskVectorBank.from_state_dicts({"w": torch.zeros(len(vectors[0]))}, states)


def test_relations_of_three_hand_made_experts() -> None:
    """T₀ and T₁ are parallel, T₂ is orthogonal to both and four times as long as T₀."""
    values = relation_statistics(bank_of([1.0, 0], [2.0, 0], [0, 4.0])).values[0]
    cosine, norm, signs = values.T.tolist()
    assert cosine == pytest.approx([0.5, 0.5, 0])
    assert norm == pytest.approx([3 / 7, 6 / 7, 12 / 7])
    assert signs == pytest.approx([0.5, 0.5, 0.5])  # the sum (3, 4) has two positive signs


@pytest.mark.parametrize("size", [7, CHUNK + 5])
def test_relations_equal_numpy(size: int) -> None:
    vectors = torch.randn(4, size, generator=torch.Generator().manual_seed(0))
    found = relation_statistics(bank_of(*vectors)).values[0].numpy()
    exact = vectors.double().numpy()
    norms = np.linalg.norm(exact, axis=1)
    cosines = exact @ exact.T / np.outer(norms, norms)
    np.testing.assert_allclose(found[:, 0], (cosines.sum(1) - 1) / 3, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], norms / norms.mean(), rtol=1e-6)
    agreeing = np.sign(exact) == np.sign(exact.sum(0))
    np.testing.assert_allclose(found[:, 2], agreeing.mean(1), atol=1e-4)


def test_relations_ignore_a_common_scale(bank: TaskVectorBank) -> None:
    scaled = TaskVectorBank(
        bank.tasks, bank.pretrained, {n: 8 * v for n, v in bank.vectors.items()}, bank.kept
    )
    torch.testing.assert_close(
        relation_statistics(bank).values, relation_statistics(scaled).values, rtol=1e-9, atol=1e-9
    )


def test_cosines_of_whole_task_vectors(
    bank: TaskVectorBank, experts: dict[str, dict[str, Tensor]], pretrained: dict[str, Tensor]
) -> None:
    flat = torch.stack(
        [
            torch.cat([(expert[n] - pretrained[n]).flatten().double() for n in bank.layers])
            for expert in experts.values()
        ]
    )
    expected = torch.nn.functional.cosine_similarity(flat[:, None], flat[None], dim=2)
    torch.testing.assert_close(task_vector_cosines(bank), expected, rtol=1e-5, atol=1e-6)


def test_an_expert_that_did_not_move_has_no_direction() -> None:
    bank = bank_of([1.0, 2.0], [0.0, 0.0])
    assert task_vector_cosines(bank).tolist() == [[pytest.approx(1), 0], [0, 0]]
    assert relation_statistics(bank).values[0, 1].tolist() == [0, 0, 0]


def test_place_is_depth_and_kind(bank: TaskVectorBank) -> None:
    places = place_statistics(bank.layers, bank.tasks)
    assert places.columns[0] == "depth"
    depth, kinds = places.values[:, 0, 0], places.values[:, 0, 1:]
    assert depth[0] == 0
    assert depth[-1] == 1
    assert (depth.diff() > 0).all()
    assert (kinds.sum(dim=1) == 1).all()
    assert torch.equal(places.values[:, 0], places.values[:, -1])


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ("blocks.0.mlp.fc1.weight", "blocks.mlp.fc1.weight"),
        ("blocks.11.mlp.fc1.weight", "blocks.mlp.fc1.weight"),
        ("transformer.resblocks.3.ln_1.bias", "transformer.resblocks.ln_1.bias"),
        ("layer1.0.conv2.weight", "layer1.conv2.weight"),
        ("0.weight", "weight"),
    ],
)
def test_kind_is_the_name_without_numbers(layer: str, kind: str) -> None:
    assert layer_kind(layer) == kind
