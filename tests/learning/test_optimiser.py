"""Sharpness-aware steps against their formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from statsmerging.learning.optimiser import SharpnessAwareAdamW


def test_a_step_follows_the_gradient_at_the_shifted_point() -> None:
    generator = torch.Generator().manual_seed(0)
    curvature = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    start = torch.randn(4, generator=generator, dtype=torch.float64)

    def gradient(point: Tensor) -> Tensor:
        return (curvature + curvature.T) @ point

    found = nn.Parameter(start.clone())
    optimiser = SharpnessAwareAdamW([found], sharpness=0.3, lr=0.05, weight_decay=0.0)
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
        assert loss == (before @ curvature @ before).item()
        direction = gradient(before) / gradient(before).norm()
        expected.grad = gradient(before + 0.3 * direction)
        plain.step()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
