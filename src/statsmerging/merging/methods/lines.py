"""LiNeS: coefficients that rise linearly with depth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import blocks_of


@dataclass(frozen=True)
class LiNeS(DataFreeMethod):
    """LiNeS on the sum of the task vectors (Wang et al., *LiNeS: Post-training Layer Scaling
    Prevents Forgetting and Enhances Model Merging*, ICLR 2025).

    θ₀ + λ^ℓ Σ_k T_k with λ^ℓ = 1/K + β b / (B − 1) in block b = 0 … B − 1 of the network, and 1/K
    outside of blocks, as in the released code: the first layers, which are general, are averaged,
    the last ones move further. In a network without blocks depth is the position of the tensor.

    Args:
        slope: β. The paper tunes it from 0.1 to 1 and recommends no value; 0.3 is task
            arithmetic's λ.
    """

    name = "lines"
    title = "LiNeS"
    tunable = Grid("slope", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0))

    slope: float = parameter(0.3, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"slope": 0.0}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        depths = torch.tensor(depths_of(bank.layers), device=bank.device)
        scales = 1 / len(bank.tasks) + self.slope * depths
        return bank.merge(scales.unsqueeze(1).expand(-1, len(bank.tasks)))


def depths_of(layers: tuple[str, ...]) -> list[float]:
    """Depth of every layer from 0, the first block, to 1, the last; outside of blocks 0."""
    blocks = blocks_of(layers)
    if not blocks:
        return [place / max(1, len(layers) - 1) for place in range(len(layers))]
    last = max(1, len(blocks) - 1)
    return [
        next((place / last for place, block in enumerate(blocks) if layer.startswith(block)), 0.0)
        for layer in layers
    ]
