"""The optimiser of the learner: AdamW, with sharpness-aware steps where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from statsmerging.learning.settings import TrainerSettings


def learner_optimiser(parameters: Sequence[nn.Parameter], settings: TrainerSettings) -> AdamW:
    """AdamW as the trainer's settings ask for it."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.sharpness == 0:
        return AdamW(parameters, lr=rate, weight_decay=decay)
    return SharpnessAwareAdamW(
        parameters,
        sharpness=settings.sharpness,
        relative=settings.relative_sharpness,
        lr=rate,
        weight_decay=decay,
    )


class SharpnessAwareAdamW(AdamW):
    """AdamW on the gradient at the worst point within a distance ρ of the parameters.

    Sharpness-Aware Minimization (Foret et al., ICLR 2021): w moves along the gradient at
    w + ρ g / ‖g‖, where g is the gradient at w. A step costs two forward and backward passes.

    Args:
        sharpness: ρ, in the units of the parameters, above 0.
        relative: measure distance in units of each parameter's own size, as in ASAM (Kwon et al.,
            ICML 2021): the gradient is that at w + ρ w² g / ‖w g‖, entry by entry.
        options: of AdamW.
    """

    def __init__(
        self, parameters: Any, *, sharpness: float, relative: bool = False, **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self.sharpness = sharpness
        self.relative = relative

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step.

        Args:
            closure: clears the gradients, computes the loss and its gradients, and returns it.

        Returns:
            The loss at w.
        """
        assert closure is not None  # Lightning always gives one
        with torch.enable_grad():
            loss = closure()
        shifts = self._shift()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for weight, shift in shifts:
                weight.sub_(shift)
        super().step()
        return loss

    @torch.no_grad()
    def _shift(self) -> list[tuple[Tensor, Tensor]]:
        """Move every parameter by ρ s² g / ‖s g‖; returns parameters and shifts.

        The unit s is 1, or the parameter's size.
        """
        weights = [w for group in self.param_groups for w in group["params"] if w.grad is not None]
        units = [weight.abs() if self.relative else torch.ones_like(weight) for weight in weights]
        pairs = list(zip(weights, units, strict=True))
        norm = torch.stack([(unit * w.grad).norm() for w, unit in pairs]).norm().clamp_min(1e-12)
        shifts = [(w, self.sharpness / norm * unit.square() * w.grad) for w, unit in pairs]
        for weight, shift in shifts:
            weight.add_(shift)
        return shifts
