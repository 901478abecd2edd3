"""Learning in episodes: every step merges another subset of the seen experts.

A learner that always sees the same K experts cannot learn how coefficients depend on their number
and on each other. In episodes it sees N subsets of 2 to K experts, so that it can predict for
experts, and numbers of them, that it has never seen. The images of a step are those of its tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from statsmerging.choices import Anchor, Objective
from statsmerging.learning.chosen_methods import LearnedMethod
from statsmerging.learning.data_module import UnlabeledBatch
from statsmerging.learning.fit import LearningStep, learned
from statsmerging.learning.learned_coefficients import LearnedCoefficients, predicted
from statsmerging.learning.mergeable import Mergeable, at_granularity, run_statistics
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.merging.bank import SomeExperts, TaskVectorBank
from statsmerging.merging.direction_learner import DirectionLearner
from statsmerging.merging.directions import DirectionStatistics
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.mask_learner import MaskLearner
from statsmerging.merging.merged_model import Bank, MergedModel
from statsmerging.merging.relations import RELATION_COLUMNS, relation_statistics
from statsmerging.merging.statistics import LayerStatistics
from statsmerging.zoo.heads import Head

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpisodePlan:
    """Which experts each step merges; a function of seed and step alone.

    A run that continues from a checkpoint sees the episodes it would have seen.

    Attributes:
        subsets: numbers of the experts of each subset, ascending; the last one is all of them.
        seed: of the order in which the subsets are visited, in shuffled passes.
    """

    subsets: tuple[tuple[int, ...], ...]
    seed: int

    @classmethod
    def drawn(cls, experts: int, count: int, seed: int) -> EpisodePlan:
        """``count`` different subsets of 2 to K experts, all of them if there are fewer.

        The size of a subset is drawn first, evenly, then its experts: most subsets have K / 2
        experts, and large ones would hardly be seen.

        Args:
            experts: K.
        """
        everyone = tuple(range(experts))
        possible = 2**experts - experts - 1  # neither empty nor a single expert
        generator = np.random.default_rng(seed)
        drawn: dict[tuple[int, ...], None] = {}
        while len(drawn) < min(count, possible) - 1:
            size = generator.integers(2, experts)
            members = sorted(generator.choice(experts, size, replace=False).tolist())
            drawn[tuple(members)] = None
        return cls((*drawn, everyone), seed)

    def number(self, step: int) -> int:
        """Number of the subset of a step; each is visited once in a pass."""
        passes, position = divmod(step, len(self.subsets))
        order = np.random.default_rng([self.seed, passes]).permutation(len(self.subsets))
        return int(order[position])

    def members(self, step: int) -> tuple[int, ...]:
        """Numbers of the experts of a step."""
        return self.subsets[self.number(step)]


class EpisodicStudent(MergedModel):
    """A merged model of one subset of the experts at a time; all of them share θ₀.

    Args:
        banks: of each subset; the last one holds all experts.

    The others are those of ``MergedModel``.
    """

    def __init__(
        self, backbone: nn.Module, banks: Sequence[Bank], anchor: Anchor, *, compiled: bool = False
    ) -> None:
        super().__init__(backbone, banks[-1], anchor, compiled=compiled)
        self.banks = tuple(banks)

    def enter(self, number: int) -> None:
        """Merge the experts of this subset from now on."""
        self.bank = self.banks[number]

    def leave(self) -> None:
        """Merge all experts again, and forget the subsets."""
        self.banks = self.banks[-1:]
        self.enter(-1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EpisodicStudent:
        """Move all banks; they keep sharing θ₀."""
        self.enter(-1)
        super()._apply(fn, recurse)
        for bank in self.banks[:-1]:
            bank.pretrained = self.bank.pretrained
            bank.kept = {name: fn(value) for name, value in bank.kept.items()}
            bank.move(fn)
        return self


class StatsMergingInEpisodes(StatsMerging):
    """Every step merges and sees the tasks of one subset, with the coefficients predicted for it.

    Args:
        learner: of all experts' statistics; one that predicts.
        student: holds the banks of the subsets.
        plan: which subset a step merges.
        statistics: of each subset.

    The others are those of ``StatsMerging``.
    """

    student: EpisodicStudent

    def __init__(
        self,
        learner: StatsMergeLearner | DirectionLearner,
        student: EpisodicStudent,
        heads: Mapping[str, Head],
        targets: Mapping[str, Tensor],
        normalise: Callable[[Tensor], Tensor],
        labels: LabelsSettings,
        objective: Objective,
        settings: TrainerSettings,
        *,
        plan: EpisodePlan,
        statistics: Sequence[LayerStatistics | DirectionStatistics],
    ) -> None:
        super().__init__(learner, student, heads, targets, normalise, labels, objective, settings)
        self.plan = plan
        self.statistics = tuple(statistics)

    def training_step(self, batch: UnlabeledBatch) -> Tensor:
        self.student.enter(self.plan.number(self.global_step))
        for task in self.tasks:
            if task not in self.student.bank.tasks:
                # Lightning would write the loss of an earlier step again.
                self.log(f"loss/{task}", torch.nan, sync_dist=self._processes > 1)
        return super().training_step(batch)

    def coefficients(self) -> Tensor:
        """λ of the step's experts: what the learner predicts for them as they are now."""
        return predicted(self.learner, self.statistics[self.plan.number(self.global_step)])

    def on_train_end(self) -> None:
        self.student.leave()


def learn_in_episodes(
    step: LearningStep,
    method: LearnedMethod,
    bank: TaskVectorBank,
    parts: Mergeable,
    targets: Mapping[str, Tensor],
) -> LearnedCoefficients:
    """Train the learner of a method on subsets of the experts.

    A run that was killed continues from its last checkpoint and ends at the same coefficients.

    Args:
        bank: task vectors of all seen experts.
        parts: what is merged of all of them, and its statistics; see ``LearningStep.learn``.
        targets: see there.

    Returns:
        The learner, and its coefficients for all seen experts.

    Raises:
        UserError: several processes with a setting that needs one.
    """
    step.check_processes(method)
    settings, zoo = step.settings, step.problem.zoo
    assert method.settings.episodes is not None
    plan = EpisodePlan.drawn(len(bank.tasks), method.settings.episodes, settings.trainer.seed)
    log.info("%s: %d subsets of the experts", method.settings.title, len(plan.subsets))
    meter = step.meter()
    with meter.phase("statistics"):
        subsets = [*_subsets(step, method, bank, plan), parts]
    of_directions = [
        subset.statistics
        for subset in subsets
        if isinstance(subset.statistics, DirectionStatistics)
    ]
    # Of all subsets together: of one alone log K is a constant, which the learner cannot see.
    learner = step.learner(method, parts.statistics, of_directions)
    assert not isinstance(learner, MaskLearner)  # masks predict nothing
    module = StatsMergingInEpisodes(
        learner,
        EpisodicStudent(
            zoo.network.frozen(),
            [subset.bank for subset in subsets],
            method.settings.anchor,
            compiled=settings.merge.compile,
        ),
        {task: zoo.experts[task].head for task in bank.tasks},
        targets,
        zoo.preprocess.normalise,
        method.labels(settings.labels),
        method.settings.objective,
        method.trainer(settings.trainer),
        plan=plan,
        statistics=[subset.statistics for subset in subsets],
    )
    fitted = step.fit(module, method, tasks=plan.members)
    found = learned(module, learner, parts.bank, fitted)
    return replace(found, expense=meter.expense + found.expense)


def _subsets(
    step: LearningStep, method: LearnedMethod, bank: TaskVectorBank, plan: EpisodePlan
) -> Iterator[Mergeable]:
    """What is merged of each subset but the last, all experts, and its statistics."""
    whole = run_statistics(step.settings, step.problem, bank, density=None)
    for subset in plan.subsets[:-1]:
        tasks = [bank.tasks[number] for number in subset]
        some = SomeExperts(bank, {task: step.problem.zoo.experts[task].state for task in tasks})
        yield at_granularity(
            step.settings, step.problem, method, some, statistics_among(some, whole)
        )


def statistics_among(bank: SomeExperts, whole: LayerStatistics) -> LayerStatistics:
    """Statistics of some experts: each one's own, and relations with those of the bank alone.

    Args:
        whole: of all experts.
    """
    statistics = whole.of(bank.tasks)
    related = [column for column in RELATION_COLUMNS if column in whole.columns]
    if related:
        relations = relation_statistics(bank)
        for column in related:
            place = statistics.columns.index(column)
            own = relations.columns.index(column)
            statistics.values[:, :, place] = relations.values[:, :, own]
    return statistics
