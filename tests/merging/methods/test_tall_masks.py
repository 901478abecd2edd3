"""TALL masks against their definition, entry by entry, and against Consensus merging."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.checks import TASKS
from statsmerging.merging.methods.consensus import Consensus
from statsmerging.merging.methods.tall_masks import TallMasks
from tests.merging.methods.reference import flat_task_vectors, flat_update

States = dict[str, dict[str, Tensor]]


@pytest.mark.parametrize("strictness", [0.2, 0.6])
def test_tall_masks(bank: TaskVectorBank, strictness: float) -> None:
    vectors = flat_task_vectors(bank)
    models = TallMasks(strictness).merge(bank)
    assert tuple(models) == TASKS
    for task, vector in zip(TASKS, vectors, strict=True):
        expected = np.zeros(len(vector))
        for entry, (own, total) in enumerate(zip(vector, vectors.sum(axis=0), strict=True)):
            if abs(own) > strictness * abs(total - own):
                expected[entry] = total
        assert 0.02 < (expected == 0).mean() < 0.98
        np.testing.assert_allclose(flat_update(bank, models[task]), expected, atol=1e-6)


def test_one_expert_comes_back_and_copies_are_added_up_or_dropped(
    pretrained: dict[str, Tensor], experts: States
) -> None:
    one = TaskVectorBank.from_state_dicts(pretrained, {"svhn": experts["svhn"]})
    found, expert = TallMasks().merge(one)["svhn"], one.expert("svhn")
    for name in one.layers:
        torch.testing.assert_close(found[name], expert[name], rtol=0, atol=1e-6)
    copies = TaskVectorBank.from_state_dicts(pretrained, dict.fromkeys(TASKS, experts["svhn"]))
    vector = flat_update(one, expert)
    # |T_k| is half of |T − T_k|.
    for strictness, factor in ((0.4, 3), (0.6, 0)):
        update = flat_update(copies, TallMasks(strictness).merge(copies)["cars"])
        np.testing.assert_allclose(update, factor * vector, atol=1e-5)


def test_consensus_keeps_what_enough_masks_keep(bank: TaskVectorBank) -> None:
    models = TallMasks(0.4).merge(bank)
    kept = sum((flat_update(bank, models[task]) != 0).astype(int) for task in TASKS)
    merged = flat_update(bank, Consensus(mask_strictness=0.4, agreement=2).merge(bank))
    np.testing.assert_array_equal(merged != 0, kept >= 2)


def test_order_of_experts_does_not_matter(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States
) -> None:
    order = ("cars", "mnist", "svhn")
    shuffled = TaskVectorBank.from_state_dicts(pretrained, {task: experts[task] for task in order})
    models, others = TallMasks().merge(bank), TallMasks().merge(shuffled)
    for task in TASKS:
        for name in bank.layers:
            torch.testing.assert_close(others[task][name], models[task][name], rtol=0, atol=1e-6)
