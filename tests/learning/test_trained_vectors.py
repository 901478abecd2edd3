"""The control that trains biases and norms: what it adds, its gradients, its coefficients."""

from __future__ import annotations

import pytest
import torch

from statsmerging.learning.trained_vectors import StudentWithTrainedVectors
from statsmerging.merging import MergedModel, SpectralBank, StatsMergeLearner, layer_statistics
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.state_dicts import is_vector
from tests.learning.test_module import gradients, make_data, make_module
from tests.small_models import TinyBackbone


def vectors_of(bank: TaskVectorBank) -> set[str]:
    return {name for name, layer in bank.pretrained.items() if is_vector(layer)}


def test_offsets_are_added_to_what_is_no_matrix(bank: TaskVectorBank) -> None:
    spectral = SpectralBank.from_bank(bank)
    student = StudentWithTrainedVectors(TinyBackbone(), spectral)
    plain = MergedModel(TinyBackbone(), spectral)
    coefficients = torch.rand(sum(spectral.sizes.values()))
    assert set(student.names) == vectors_of(bank)
    before = plain.weights(coefficients)
    assert all(torch.equal(w, before[n]) for n, w in student.weights(coefficients).items())
    for offset in student.offsets:
        torch.nn.init.normal_(offset)
    offsets = student.trained()
    for name, weight in student.weights(coefficients).items():
        expected = before[name] + offsets.get(name, 0)
        torch.testing.assert_close(weight, expected, rtol=0, atol=0)


@pytest.mark.parametrize("accumulate", ["joint", "per_task"])
def test_gradients_of_offsets_are_those_of_the_weights(
    bank: TaskVectorBank, accumulate: str
) -> None:
    """Task by task, or together: ∂L/∂δ = ∂L/∂θ of the same step."""
    batch = next(iter(make_data(bank).train_dataloader()))
    module = make_module(bank, accumulate)  # type: ignore[arg-type]
    module.student = StudentWithTrainedVectors(TinyBackbone(), bank)
    learner = gradients(module, batch)
    expected = gradients(make_module(bank), batch)
    for found, right in zip(learner, expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)

    plain = make_module(bank)
    plain.log = lambda *_, **__: None  # type: ignore[method-assign]
    weights = {
        name: weight.detach().requires_grad_()
        for name, weight in plain.student.weights(plain.coefficients()).items()
    }
    plain.student.weights = lambda _: weights  # type: ignore[method-assign, assignment]
    plain.training_step(batch).backward()
    for name, offset in zip(module.student.names, module.student.offsets, strict=True):
        assert offset.grad is not None
        torch.testing.assert_close(offset.grad, weights[name].grad, rtol=1e-4, atol=1e-6)


def test_coefficients_of_trained_vectors_stay_at_the_mean(bank: TaskVectorBank) -> None:
    learner = StatsMergeLearner(layer_statistics(bank), vectors="trained")
    for weight in learner.parameters():
        torch.nn.init.normal_(weight)
    rows = dict(zip(bank.layers, learner(), strict=True))
    for name in vectors_of(bank):
        torch.testing.assert_close(rows[name], torch.full_like(rows[name], 1 / len(bank.tasks)))
    assert not learner.predicts
