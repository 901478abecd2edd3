"""What a learning step gives: coefficients, the learner that made them, and what they move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from statsmerging.choices import Anchor
from statsmerging.learning.cost import Expense
from statsmerging.merging.bank import ALL_LAYERS, Coefficient
from statsmerging.merging.direction_learner import DirectionLearner
from statsmerging.merging.directions import DirectionStatistics
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.mask_learner import MaskLearner
from statsmerging.merging.merged_model import Bank
from statsmerging.merging.state_dicts import summing_type
from statsmerging.merging.statistics import LayerStatistics
from statsmerging.runs.results import LayerKind, LayerMovement
from statsmerging.zoo.heads import Head

if TYPE_CHECKING:
    from statsmerging.learning.released_code import ReleasedCodeLearner


@dataclass(frozen=True)
class LearnedCoefficients:
    """What a learning step gives.

    Attributes:
        learner: as it is after the last step.
        bank: what the coefficients merge.
        coefficients: L × K, K, or one per singular direction, on the CPU.
        gradient_norm: of the learner in the last step.
        offsets: layer → what was trained besides merging, see ``StudentWithTrainedVectors``.
        heads: task → what was trained in place of its frozen head.
        expense: of the learning, and of statistics that are made for it alone.
    """

    learner: StatsMergeLearner | DirectionLearner | MaskLearner | ReleasedCodeLearner
    bank: Bank
    coefficients: Tensor
    gradient_norm: float
    offsets: Mapping[str, Tensor] = field(default_factory=dict)
    heads: Mapping[str, Head] = field(default_factory=dict)
    expense: Expense = field(default_factory=Expense)

    def state(self, anchor: Anchor) -> dict[str, Tensor]:
        """The merged weights by name."""
        return merged_state(self.bank, self.coefficients, anchor, self.offsets)

    def listed(self) -> list[Coefficient]:
        """The coefficients one by one, with their places."""
        return self.bank.listed(self.coefficients)

    def from_network(self) -> tuple[list[Coefficient], LayerKind | None]:
        """The coefficients that a network gives from one start, and the layers they are of.

        Whole vectors have a start of their own among singular directions; with ``vectors=table``,
        ``mean`` or ``only`` the network gives one kind alone. ``None``: all layers.
        """
        listed = self.listed()
        if listed[0].layer == ALL_LAYERS:
            return listed, None
        chosen = self.learner.vectors
        if chosen == "learned" and listed[0].direction is None:
            return listed, None
        vectors = self.bank.vector_layers
        if chosen == "only":
            return [each for each in listed if each.layer in vectors], "vectors"
        return [each for each in listed if each.layer not in vectors], "matrices"

    @torch.no_grad()
    def movement(self, state: Mapping[str, Tensor]) -> dict[LayerKind, LayerMovement]:
        """How far matrices and vectors are from θ₀; a kind without coefficients is left out.

        Args:
            state: the weights that were merged with the coefficients.
        """
        start, vectors = self.bank.pretrained, self.bank.vector_layers
        listed = self.listed()
        kinds: dict[LayerKind, bool] = {"matrices": False, "vectors": True}
        found: dict[LayerKind, LayerMovement] = {}
        for kind, of_vectors in kinds.items():
            names = [name for name in start if (name in vectors) == of_vectors]
            sizes = [
                abs(each.value)
                for each in listed
                if each.layer == ALL_LAYERS or (each.layer in vectors) == of_vectors
            ]
            if names and sizes:
                moved = math.hypot(*(_norm(state[name] - start[name]) for name in names))
                whole = math.hypot(*(_norm(start[name]) for name in names))
                found[kind] = LayerMovement(
                    largest_coefficient=max(sizes), relative=moved / whole if whole else None
                )
        return found

    @property
    def predicts(self) -> bool:
        """Whether the learner can tell coefficients of other experts: a table cannot."""
        return self.learner.predicts

    @torch.no_grad()
    def predict(self, statistics: LayerStatistics | DirectionStatistics) -> Tensor:
        """Coefficients for other experts, from statistics of the same kind."""
        return predicted(self.learner.cpu(), statistics)


def merged_state(
    bank: Bank, coefficients: Tensor, anchor: Anchor, offsets: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The merged weights by name.

    Args:
        offsets: layer → what is added to it, see ``StudentWithTrainedVectors``.
    """
    merged = bank.merge(coefficients, anchor)
    moved = {name: merged[name] + offset for name, offset in offsets.items()}
    return {**merged, **moved}


def predicted(learner: nn.Module, statistics: LayerStatistics | DirectionStatistics) -> Tensor:
    """Coefficients for experts with these statistics, differentiable in the learner."""
    if isinstance(statistics, DirectionStatistics):
        assert isinstance(learner, DirectionLearner)
        return learner.predict(statistics)
    assert isinstance(learner, StatsMergeLearner)
    return learner.predict(statistics)


def _norm(layer: Tensor) -> float:
    return float(torch.linalg.vector_norm(layer.to(summing_type(layer.dtype))))
