"""Binary masks of singular directions: which of them enter the merge at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statsmerging.choices import VectorCoefficients
from statsmerging.merging.directions import DirectionStatistics
from statsmerging.merging.learner import ANCHORED_START

#: Numbers that masks are made of, before the first step: all directions are kept.
KEPT = 0.1

#: They are divided by it before the sigmoid, whose slope is the gradient of a mask.
TEMPERATURE = 10.0


class MaskLearner(nn.Module):
    """A binary mask for every singular direction, and a coefficient per layer and expert.

    AdaRank (Lee et al., *AdaRank: Adaptive Rank Pruning for Enhanced Model Merging*, ICLR 2026):
    λ_{k,i} = w_k · [m_{k,i} > 0], and w_k for a whole task vector, such as a bias's. Both w and m
    are learned. The step function has no gradient; that of σ(m / 10) is taken in its place
    (straight through), so that a direction that is left out can come back.

    As in the released code m starts at 0.1, and the w of all layers at one value. Otherwise than
    there, where matrices outside attention and MLPs are whole task vectors, all matrices have
    masks.

    Args:
        statistics: of the directions; which there are is all that is read.
        start: w before the first step; ``None`` for 0.3.
        scale: factor on the change of w: how far one optimiser step moves it.
    """

    kind = "masks"
    vectors: VectorCoefficients = "learned"
    #: Masks belong to single directions of these experts.
    predicts = False
    place: Tensor
    whole: Tensor

    def __init__(
        self, statistics: DirectionStatistics, *, start: float | None = None, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.start = ANCHORED_START if start is None else start
        self.scale = scale
        tasks = len(statistics.tasks)
        place = statistics.layer * tasks + statistics.task
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("whole", statistics.whole, persistent=False)
        self.table = nn.Parameter(torch.zeros(len(statistics.layers) * tasks))
        self.masks = nn.Parameter(torch.full((len(place),), KEPT))

    def forward(self) -> Tensor:
        """The coefficients λ, D, differentiable in the learner's parameters."""
        weights = (self.start + self.scale * self.table)[self.place]
        soft = torch.sigmoid(self.masks / TEMPERATURE)
        kept = (self.masks > 0).to(soft)
        # The value is exactly 0 or 1, whatever the rounding of the sigmoid.
        straight_through = kept + (soft - soft.detach())
        return weights * straight_through.masked_fill(self.whole, 1)
