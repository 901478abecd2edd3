"""The merged model of one method, with what is known of it for the row of the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
from statsmerging.learning.cost import Expense
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.runs.results import GridChoice, LayerKind, LayerMovement, MethodResult
from statsmerging.scoring.scores import Candidate

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Merged:
    """The merged model of one method.

    Attributes:
        name: of its row in the table.
        candidate: the model to score.
        about: title, needs, returns and parameters, for the record.
        state: the merged weights, if the method gives one static model.
        learned: learner and coefficients, if the method learns any.
        choice: of the tuned parameter, if it was tuned.
        shared: work that other rows share: task vectors, statistics, evidence.
        own: work for this row alone: learning and merging.
    """

    name: str
    candidate: Candidate
    about: dict[str, Any]
    state: StateDict | None = None
    learned: LearnedCoefficients | None = None
    choice: GridChoice | None = None
    shared: Expense = field(default_factory=Expense)
    own: Expense = field(default_factory=Expense)

    @property
    def expense(self) -> Expense:
        """All that the row took, but for its scores."""
        return self.shared + self.own

    def row(self, scored: MethodResult, expense: Expense) -> MethodResult:
        """The row of the results: its scores, with what is known of the method.

        Args:
            expense: of all work on the row, scoring included.
        """
        return replace(
            scored,
            about=self.about,
            choice=self.choice,
            movement=self.movement(),
            cost=expense.cost,
            measured=expense.measured,
        )

    def movement(self) -> dict[LayerKind, LayerMovement]:
        """How far the learned coefficients move the weights; empty if none were learned."""
        if self.learned is None or self.state is None:
            return {}
        return self.learned.movement(self.state)


@dataclass(frozen=True)
class Tuned:
    """A method with the values that agree most with the teachers, and the model they give."""

    method: LearnedMethod | FixedMethod
    merged: Merged
