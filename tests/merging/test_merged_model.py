"""The differentiable merge against autograd in float64; the student's frozen parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from statsmerging.choices import Anchor
from statsmerging.merging import MergedModel, MergingError, TaskVectorBank
from tests.small_models import TinyBackbone


def reference_gradient(
    backbone: TinyBackbone, bank: TaskVectorBank, images: Tensor, rows: Tensor, anchor: Anchor
) -> tuple[Tensor, Tensor]:
    """Output and ∂(Σ output²)/∂λ by plain autograd through the formula, all in float64."""
    coefficients = rows.double().requires_grad_()
    weights: dict[str, Tensor] = {}
    for row, (name, start) in zip(coefficients, bank.pretrained.items(), strict=True):
        vectors = bank.vectors[name].double()
        factor = 1.0 if anchor == "pretrained" else row.sum()
        total = sum(row[k] * vectors[k] for k in range(len(row)))
        assert isinstance(total, Tensor)
        weights[name] = factor * start.double() + total.view_as(start)
    kept = {name: value.double() for name, value in bank.kept.items() if value.is_floating_point()}
    output = functional_call(backbone.eval().double(), {**kept, **weights}, (images.double(),))
    (gradient,) = torch.autograd.grad(output.square().sum(), coefficients)
    backbone.float()
    return output.detach(), gradient


@pytest.mark.parametrize("anchor", ["pretrained", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_and_coefficient_gradient_equal_float64_autograd(
    pretrained: dict[str, Tensor],
    experts: dict[str, dict[str, Tensor]],
    anchor: Anchor,
    dtype: torch.dtype,
) -> None:
    bank = TaskVectorBank.from_state_dicts(pretrained, experts, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(6, 3, 8, 8, generator=generator)
    rows = 0.3 + 0.2 * torch.randn(len(bank.layers), 3, generator=generator)
    expected, expected_gradient = reference_gradient(TinyBackbone(), bank, images, rows, anchor)

    student = MergedModel(TinyBackbone(), bank, anchor)
    coefficients = rows.clone().requires_grad_()
    output = student(images, coefficients)
    output.square().sum().backward()
    assert coefficients.grad is not None
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(coefficients.grad.double(), expected_gradient, rtol=1e-3, atol=1e-4)


def test_task_wise_gradient_is_the_sum_over_layers(bank: TaskVectorBank) -> None:
    student = MergedModel(TinyBackbone(), bank)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    per_task = torch.full((3,), 0.3, requires_grad=True)
    per_layer = torch.full((len(bank.layers), 3), 0.3, requires_grad=True)
    student(images, per_task).square().sum().backward()
    student(images, per_layer).square().sum().backward()
    assert per_task.grad is not None
    assert per_layer.grad is not None
    torch.testing.assert_close(per_task.grad, per_layer.grad.sum(0))


def test_student_equals_the_merged_state_dict(bank: TaskVectorBank) -> None:
    student = MergedModel(TinyBackbone(), bank)
    plain = TinyBackbone().eval()
    coefficients = torch.linspace(-1, 1, 3 * len(bank.layers)).view(-1, 3)
    plain.load_state_dict(bank.merge(coefficients))
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(student(images, coefficients), plain(images))


def test_student_shares_the_pretrained_weights_and_trains_nothing(bank: TaskVectorBank) -> None:
    student = MergedModel(TinyBackbone(), bank)
    for name, parameter in student.backbone.named_parameters():
        assert parameter.data_ptr() == bank.pretrained[name].data_ptr()
        assert not parameter.requires_grad
    student.train()
    assert not student.backbone.training


def test_conversion_takes_the_bank_along(bank: TaskVectorBank) -> None:
    student = MergedModel(TinyBackbone(), bank).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert student(images, torch.full((3,), 0.3, dtype=torch.float64)).dtype == torch.float64


def test_compiled_merge_gives_the_same_output_and_gradient(bank: TaskVectorBank) -> None:
    try:
        compiled = MergedModel(TinyBackbone(), bank, compiled=True)
    except MergingError as error:
        pytest.skip(str(error))
    plain = MergedModel(TinyBackbone(), bank)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    gradients = []
    for student in (plain, compiled):
        coefficients = torch.full((len(bank.layers), 3), 0.3, requires_grad=True)
        student(images, coefficients).square().sum().backward()
        gradients.append(coefficients.grad)
    torch.testing.assert_close(gradients[1], gradients[0])


def test_tied_weights_are_refused() -> None:
    backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    state = {name: value.detach().clone() for name, value in backbone.state_dict().items()}
    experts = {"a": {name: value + 1 for name, value in state.items()}}
    bank = TaskVectorBank.from_state_dicts(state, experts)
    backbone[1].weight = backbone[0].weight
    with pytest.raises(MergingError, match=r"ties 0\.weight to 1\.weight, which is not merged"):
        MergedModel(backbone, bank)
