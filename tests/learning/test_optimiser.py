"""Sharpness-aware steps against their formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from statsmerging.learning.optimiser import SharpnessAwareAdamW


@pytest.mark.parametrize("relative", [False, True])
def test_a_step_follows_the_gradient_at_the_shifted_point(relative: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    curvature = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    start = torch.randn(4, generator=generator, dtype=torch.float64)

    def gradient(point: Tensor) -> Tensor:
        return (curvature + curvature.T) @ point

    found = nn.Parameter(start.clone())
    optimiser = SharpnessAwareAdamW(
        [found], sharpness=0.3, relative=relative, lr=0.05, weight_decay=0.0
    )
    expected = nn.Parameter(start.clone())
    plain = AdamW([expected], lr=0.05, weight_decay=0.0)

    def closure() -> float:
        optimiser.zero_grad()
        loss = found @ curvature @ found
        loss.backward()
        return loss.item()

    for _ in range(3):
        before = expected.detach().clone()
        loss = optimiser.step(closure)
        assert loss == pytest.approx((before @ curvature @ before).item(), rel=1e-12)
        unit = before if relative else torch.ones_like(before)
        shift = 0.3 * unit**2 * gradient(before) / (unit * gradient(before)).norm()
        expected.grad = gradient(before + shift)
        plain.step()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_relative_step_leaves_parameters_at_zero_where_they_are() -> None:
    """The first step from λ = 0 is a plain one."""
    found = nn.Parameter(torch.zeros(2))
    optimiser = SharpnessAwareAdamW(
        [found], sharpness=0.3, relative=True, lr=0.05, weight_decay=0.0
    )

    def closure() -> float:
        optimiser.zero_grad()
        loss = (found - 1).square().sum()
        loss.backward()
        return loss.item()

    optimiser.step(closure)
    torch.testing.assert_close(found.detach(), torch.full((2,), 0.05))
