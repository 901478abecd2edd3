"""What is scored: backbone weights for each task, and the zoo that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.weights import Weights


@dataclass(frozen=True)
class Candidate:
    """A model, or one model per task, to be scored.

    Attributes:
        title: shown beside progress bars.
        zoo: architecture, heads and preprocessing.
        weights: task → backbone weights; a task that is not there is not scored.
        keep: cache the scores; not worth it for weights that only this run makes.
    """

    title: str
    zoo: Zoo
    weights: Mapping[str, Mapping[str, Tensor]]
    keep: bool = True

    @classmethod
    def of_state(
        cls, title: str, zoo: Zoo, state: Mapping[str, Tensor], *, keep: bool = True
    ) -> Self:
        """One static model for all tasks of the zoo."""
        return cls(title, zoo, dict.fromkeys(zoo.experts, Weights.of(state)), keep)

    @classmethod
    def individual(cls, zoo: Zoo) -> Self:
        """Every expert on its own task: the upper row of a table."""
        weights = {task: expert.state for task, expert in zoo.experts.items()}
        return cls("individual", zoo, weights)

    def weights_of(self, task: str) -> Weights:
        """Backbone weights for one task."""
        return Weights.of(self.weights[task])
