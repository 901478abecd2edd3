"""Task arithmetic (Ilharco et al., *Editing Models with Task Arithmetic*, ICLR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter

#: The λ the paper tunes over, in steps of 0.1.
TASK_ARITHMETIC_SCALES = Grid("scale", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0))


@dataclass(frozen=True)
class TaskArithmetic(DataFreeMethod):
    """θ₀ + λ Σ_k T_k with one coefficient for all tasks and layers.

    Ilharco et al., *Editing Models with Task Arithmetic*, ICLR 2023.

    Args:
        scale: λ. The paper recommends 0.3 where it cannot be tuned.
    """

    name = "task_arithmetic"
    title = "Task arithmetic"
    tunable = TASK_ARITHMETIC_SCALES

    scale: float = parameter(0.3, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"scale": 1 / copies}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return bank.merge(torch.full((len(bank.tasks),), self.scale, device=bank.device))
