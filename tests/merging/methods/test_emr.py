"""EMR-Merging against its definition, entry by entry, and what it must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.checks import TASKS
from statsmerging.merging.methods.emr import Emr
from tests.merging.methods.reference import flat_task_vectors, flat_update

States = dict[str, dict[str, Tensor]]


def assert_expert(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


def test_emr(bank: TaskVectorBank) -> None:
    vectors = flat_task_vectors(bank)
    elected = np.zeros(vectors.shape[1])
    for entry, column in enumerate(vectors.T):
        sign = np.sign(column.sum())
        elected[entry] = sign * max(abs(value) for value in column if np.sign(value) == sign)
    models = Emr().merge(bank)
    assert tuple(models) == TASKS
    for task, vector in zip(TASKS, vectors, strict=True):
        expected = np.where(vector * elected > 0, elected, 0)
        expected *= np.abs(vector).sum() / np.abs(expected).sum()
        np.testing.assert_allclose(flat_update(bank, models[task]), expected, atol=1e-6)


def test_a_task_keeps_its_signs_and_its_size(bank: TaskVectorBank) -> None:
    models = Emr().merge(bank)
    for task, vector in zip(TASKS, flat_task_vectors(bank), strict=True):
        update = flat_update(bank, models[task])
        assert (update * vector >= 0).all()
        assert np.abs(update).sum() == pytest.approx(np.abs(vector).sum(), rel=1e-5)


def test_one_expert_and_copies_of_an_expert_come_back(
    pretrained: dict[str, Tensor], experts: States
) -> None:
    one = TaskVectorBank.from_state_dicts(pretrained, {"svhn": experts["svhn"]})
    assert_expert(Emr().merge(one)["svhn"], one.expert("svhn"))
    copies = TaskVectorBank.from_state_dicts(pretrained, dict.fromkeys(TASKS, experts["svhn"]))
    for task in TASKS:
        assert_expert(Emr().merge(copies)[task], one.expert("svhn"))


def test_experts_that_change_different_entries_come_back(
    pretrained: dict[str, Tensor], experts: States
) -> None:
    """Where experts do not meet, nothing is lost."""
    apart = {
        task: {
            **pretrained,
            "linear": torch.where(
                torch.arange(84).view(7, 12) % 3 == k,
                experts[task]["linear"],
                pretrained["linear"],
            ),
        }
        for k, task in enumerate(TASKS)
    }
    models = Emr().merge(TaskVectorBank.from_state_dicts(pretrained, apart))
    for task in TASKS:
        assert_expert(models[task], apart[task])


def test_order_of_experts_does_not_matter(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States
) -> None:
    order = ("cars", "mnist", "svhn")
    shuffled = TaskVectorBank.from_state_dicts(pretrained, {task: experts[task] for task in order})
    models, others = Emr().merge(bank), Emr().merge(shuffled)
    for task in TASKS:
        assert_expert(others[task], models[task])


def test_an_overruled_expert_gets_the_pretrained_model(
    pretrained: dict[str, Tensor], experts: States
) -> None:
    loud = experts["svhn"]
    quiet = {
        name: start if name == "counter" else start - 0.1 * (loud[name] - start)
        for name, start in pretrained.items()
    }
    bank = TaskVectorBank.from_state_dicts(pretrained, {"svhn": loud, "mnist": quiet})
    models = Emr().merge(bank)
    assert_expert(models["svhn"], bank.expert("svhn"))
    for name in bank.layers:
        assert torch.equal(models["mnist"][name], pretrained[name])


def test_models_are_full_state_dicts_made_when_asked_for(
    bank: TaskVectorBank, pretrained: dict[str, Tensor]
) -> None:
    models = Emr().merge(bank)
    assert len(models) == 3
    first, again = models["cars"], models["cars"]
    assert first.keys() == pretrained.keys()
    for name, tensor in first.items():
        assert tensor.shape == pretrained[name].shape
        assert tensor.dtype == pretrained[name].dtype
        assert torch.equal(tensor, again[name])
    # Nobody holds what was handed out: two requests are two models.
    first["linear"].zero_()
    assert models["cars"]["linear"].any()
    with pytest.raises(KeyError):
        models["unknown"]


def test_other_precisions(
    bank: TaskVectorBank, pretrained: dict[str, Tensor], experts: States
) -> None:
    short = TaskVectorBank.from_state_dicts(pretrained, experts, dtype=torch.bfloat16)
    full = flat_update(bank, Emr().merge(bank)["svhn"])
    rounded = flat_update(bank, Emr().merge(short)["svhn"])
    assert np.linalg.norm(full - rounded) < 0.05 * np.linalg.norm(full)
    halved = TaskVectorBank.from_state_dicts(
        {n: t.half() if t.is_floating_point() else t for n, t in pretrained.items()}, experts
    )
    assert Emr().merge(halved)["svhn"]["linear"].dtype == torch.float16
