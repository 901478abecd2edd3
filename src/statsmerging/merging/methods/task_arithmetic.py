"""Task arithmetic (Ilharco et al., *Editing Models with Task Arithmetic*, ICLR 2023)."""

import torch
from torch import Tensor

from statsmerging.merging.task_vectors import TaskVectorBank


def task_arithmetic(bank: TaskVectorBank, scale: float = 0.3) -> dict[str, Tensor]:
    """State dict of θ₀ + λ Σ_k T_k with one λ for all tasks and layers. Needs no data.

    Args:
        scale: λ; 0.3 is the value the method's paper recommends.
    """
    return bank.merge(torch.full((len(bank.tasks),), scale, device=bank.device))
