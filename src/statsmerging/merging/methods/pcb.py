"""PCB-Merging: entries compete, within a task vector and between tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import Rows, add_to_pretrained, stored_rows
from statsmerging.merging.methods.selection import kth_smallest

#: Share of the smallest and of the largest magnitudes that are clipped, as released for vision.
CLIPPED = 0.01

_TINY = 1e-12


@dataclass(frozen=True)
class Pcb(DataFreeMethod):
    """PCB-Merging (Du et al., *Parameter Competition Balancing for Model Merging*, NeurIPS 2024),
    as the authors released it for vision models.

    Magnitudes are clipped to their 1 % and 99 % quantile and scaled to |T̄_k| in [0, 1], over the
    whole task vector. Then, entry by entry,

    - within a task: exp(K |T̄_k|²), large entries win;
    - between tasks: tanh(T_k Σ_j T̄_j), entries that agree with the others win;
    - the score s_k is their product. The scores of the top ``ratio`` are scaled to [0, 1] over
      the task vector, all others are 0;
    - Δ = λ Σ_k s_k T_k / Σ_k s_k, with the clipped T_k.

    The paper writes both balances as a softmax; the released code, followed here, does not. All
    tensors are treated alike.

    Args:
        ratio: share of entries kept of each task vector; 0.05 in the released vision code. It
            counts the entries of tensors that some expert changed, and so do the quantiles.
        scale: λ; 1.2 in the released vision code.
    """

    name = "pcb"
    title = "PCB-Merging"
    tunable = Grid("scale", (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6))

    ratio: float = parameter(0.05, above=0, at_most=1)
    scale: float = parameter(1.2, at_least=0)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        competition = _Competition(bank)
        total = competition.total
        kept = max(1, round(self.ratio * total))
        lowest = kth_smallest(competition.scores, total - kept + 1).unsqueeze(1)
        highest = kth_smallest(competition.scores, total).unsqueeze(1)

        def update(layer: str) -> Tensor:
            scores = _rescaled(competition.score(layer), lowest, highest)
            weighted = (scores * competition.clipped(layer)).sum(dim=0)
            return self.scale * weighted / scores.sum(dim=0).clamp_min(_TINY)

        return add_to_pretrained(bank, update)


class _Competition:
    """The scores of all entries, computed layer by layer whenever they are asked for."""

    def __init__(self, bank: TaskVectorBank) -> None:
        self.layers = bank.layers
        self.rows: Rows = stored_rows(bank)
        self.total = sum(start.numel() for start in bank.pretrained.values())
        outside = int(CLIPPED * self.total)
        self.low = kth_smallest(self.magnitudes, outside + 1).unsqueeze(1)
        self.high = kth_smallest(self.magnitudes, self.total - outside).unsqueeze(1)

    def magnitudes(self) -> Iterable[Tensor]:
        return (self.rows(layer).abs() for layer in self.layers)

    def scores(self) -> Iterable[Tensor]:
        return (self.score(layer) for layer in self.layers)

    def clipped(self, layer: str) -> Tensor:
        """Task vectors with clipped magnitudes, K × n."""
        vectors = self.rows(layer)
        return vectors.sign() * vectors.abs().clamp(self.low, self.high)

    def score(self, layer: str) -> Tensor:
        """s_k up to a factor that the rescaling removes, K × n."""
        vectors = self.rows(layer)
        size = _rescaled(vectors.abs(), self.low, self.high)
        # exp(K (size² − 1)) instead of exp(K size²) does not overflow with many tasks.
        within = torch.exp(len(vectors) * (size.square() - 1))
        between = torch.tanh(vectors * (vectors.sign() * size).sum(dim=0))
        return within * between


def _rescaled(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values clipped to [low, high] and mapped to [0, 1]."""
    return (values.clamp(low, high) - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)
