"""From the config's methods to merged models: gives each kind of method what it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import Tensor

from statsmerging.choices import LabelsFrom, Restrict
from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
from statsmerging.learning.cost import Expense, Meter
from statsmerging.learning.episodes import learn_in_episodes
from statsmerging.learning.fit import LearningStep
from statsmerging.learning.labels import (
    Teacher,
    labelling_passes,
    learning_targets,
    teacher_scores,
)
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.mergeable import Mergeable, mergeable
from statsmerging.learning.merged import Merged, StateDict, Tuned
from statsmerging.learning.problem import MergingProblem
from statsmerging.learning.released_code import learn_as_released
from statsmerging.learning.running_statistics import Recalibration
from statsmerging.learning.settings import LabelsSettings, MergingSettings
from statsmerging.learning.trained_parts import (
    corrected_features,
    distilled_weights,
    routed_experts,
    twin_experts,
)
from statsmerging.learning.tuning import at_edge, chosen, leaders
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods import (
    DataFreeMethod,
    Evidence,
    EvidenceMethod,
    Method,
    PerTaskMethod,
    task_arithmetic,
)
from statsmerging.merging.methods.featcal import FeatCal
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.prodistill import ProDistill
from statsmerging.merging.methods.regmean_plus_plus import RegMeanPlusPlus
from statsmerging.merging.methods.surgery import RepresentationSurgery
from statsmerging.merging.methods.twin_merging import TwinMerging
from statsmerging.merging.methods.wemoe import WeightEnsemblingMoE
from statsmerging.merging.running_statistics import running_statistics
from statsmerging.runs.cost import Cost
from statsmerging.runs.results import GridChoice, TriedValue
from statsmerging.scoring.block_evidence import block_grams, block_moments
from statsmerging.scoring.evidence import IMAGES_PER_TASK, fisher_diagonals, gram_matrices
from statsmerging.scoring.scores import Candidate, TeacherAgreement
from statsmerging.zoo.experts import Expert
from statsmerging.zoo.weights import Weights

log = logging.getLogger(__name__)


class Merger:
    """Runs methods on one bank of task vectors; what several of them need is computed once.

    Args:
        folder: for the bank, if it is mapped from a file.
        checkpoints: folder for those of the learning steps.
        curves: name of a method → loggers of its learning curves.
    """

    def __init__(
        self,
        settings: MergingSettings,
        problem: MergingProblem,
        folder: Path,
        checkpoints: Path,
        curves: Callable[[str], Sequence[Logger]],
    ) -> None:
        self.settings = settings
        self.problem = problem
        self.zoo = problem.zoo
        self.images = problem.unlabeled_images("learning")
        self.step = LearningStep(settings, problem, self.images, checkpoints, curves)
        meter = self.meter()
        with meter.phase("bank"):
            self.bank = problem.bank(settings.merge, folder)
        self._of_bank = meter.expense
        chosen = settings.merge.running_statistics
        if chosen != "averaged" and not running_statistics(self.zoo.network.module):
            log.info(
                "merge.running_statistics=%s changes nothing: %s has no batch normalisation",
                chosen,
                settings.backbone.label,
            )
        self.recalibration = Recalibration(chosen, self.images, lambda: self.agreement, self.meter)
        self._of_statistics: dict[tuple[float | None, str], Expense] = {}
        self._targets: dict[tuple[bool, Restrict], tuple[dict[str, Tensor], Expense]] = {}

    def meter(self) -> Meter:
        """A meter for work on a row."""
        return self.step.meter()

    def rows(self, method: LearnedMethod | FixedMethod) -> Iterator[Merged]:
        """The method as configured and, if it has a grid, tuned by teacher agreement."""
        configured = self.as_configured(method)
        yield configured
        tuned = self.tuned(method, configured)
        if tuned is not None:
            yield tuned.merged

    def as_configured(self, method: LearnedMethod | FixedMethod) -> Merged:
        """The method with its configured values."""
        if isinstance(method, LearnedMethod):
            return self.recalibration.of(self._learned(method))
        if isinstance(method.method, RepresentationSurgery):
            return self._corrected(method.method)
        return self.recalibration.of(self._fixed(method.method))

    @cached_property
    def teachers(self) -> dict[str, Tensor]:
        """Task → its teacher's scores on its learning images."""
        return teacher_scores(self._teachers, self.problem.cache)

    def _targets_of(self, labels: LabelsSettings) -> tuple[dict[str, Tensor], Expense]:
        """What is to be learned, and what it takes: made once for all methods with these labels."""
        # All else is left to the loss.
        made_by = (labels.kind == "ground_truth", labels.restrict)
        if made_by not in self._targets:
            meter = self.meter()
            with meter.phase("evidence"):
                targets = learning_targets(labels, self._teachers, self.problem.cache)
            meter.count(Cost(forward_passes=labelling_passes(labels, self.images)))
            self._targets[made_by] = targets, meter.expense
        return self._targets[made_by]

    @cached_property
    def agreement(self) -> TeacherAgreement:
        """Agreement with the teachers on images that nothing learns from, for all methods."""
        count, labels_from = self.settings.tuning.images_per_task, self._labels_from
        held_out = self.problem.unlabeled_images("held_out")
        images = {task: split.sample(count) for task, split in held_out.items()}
        all_teachers = self.problem.teachers("held_out", labels_from)
        teachers = {task: teacher.on_sample(count) for task, teacher in all_teachers.items()}
        scores = teacher_scores(teachers, self.problem.cache)
        return TeacherAgreement(images, scores, self.problem.cache)

    @property
    def held_out(self) -> dict[str, int]:
        """Task → images of the agreement; empty if they are those that are learned from."""
        if not self.problem.learning.held_out:
            return {}
        return {task: len(split) for task, split in self.agreement.images.items()}

    @cached_property
    def _teachers(self) -> dict[str, Teacher]:
        return self.problem.teachers("learning", self._labels_from)

    @property
    def _labels_from(self) -> LabelsFrom:
        return self.settings.heterogeneous.labels_from

    @cached_property
    def _activations(self) -> tuple[Evidence, Expense]:
        meter, images = self.meter(), self._sampled(IMAGES_PER_TASK)
        with meter.phase("evidence"):
            evidence = gram_matrices(self.zoo, self.images)
        meter.count(Cost(images=images, forward_passes=images))
        return evidence, meter.expense

    @cached_property
    def _gradients(self) -> tuple[Evidence, Expense]:
        meter, images = self.meter(), self._sampled(IMAGES_PER_TASK)
        with meter.phase("evidence"):
            evidence = fisher_diagonals(self.zoo, self.images, seed=self.settings.seed)
        meter.count(Cost(images=images, forward_passes=images, backward_passes=images))
        return evidence, meter.expense

    def _sampled(self, most: int) -> int:
        """How many images at most so many of each task are."""
        return sum(min(most, len(split)) for split in self.images.values())

    def tuned(self, method: LearnedMethod | FixedMethod, configured: Merged) -> Tuned | None:
        """The method with the value of its grid that the rule chooses; ``None``: it has no grid.

        Args:
            configured: the method with its configured values, which may be in the grid.
        """
        rule, meter = self.settings.tuning.rule, self.meter()
        candidates: Iterator[LearnedMethod | FixedMethod] = method.candidates()
        spent: list[Expense] = []
        tried: list[TriedValue] = []
        ahead: dict[int, Tuned] = {}
        for value, candidate in zip(method.grid, candidates, strict=True):
            merged = configured if candidate == method else self.as_configured(candidate)
            spent.append(merged.own)
            tried.append(self._tried(value, merged, meter))
            ahead[len(tried) - 1] = Tuned(candidate, merged)
            # The models of these alone are held, not of the whole grid.
            leading = leaders(rule, [each.agreement for each in tried])
            ahead = {number: ahead[number] for number in leading}
        number = chosen(rule, [each.agreement for each in tried])
        if number is None:
            return None
        best, value = ahead[number], method.grid[number]
        others = [own.as_tuning() for place, own in enumerate(spent) if place != number]
        tuned = replace(
            best.merged,
            name=f"{method.name}_tuned",
            about={**best.merged.about, "title": f"{best.merged.about['title']}, tuned"},
            choice=GridChoice(
                parameter=method.tuned_parameter,
                rule=rule,
                value=value,
                at_edge=at_edge(value, method.grid, method.may_be),
                tried=tried,
            ),
            own=sum([meter.expense, *others], best.merged.own),
        )
        return replace(best, merged=tuned)

    def _tried(self, value: float, merged: Merged, meter: Meter) -> TriedValue:
        """Agreement of the model with one value of a grid, and its test average for the oracle."""
        meter.count(Cost(forward_passes=self.agreement.count))
        try:
            with meter.phase("tuning"):
                shares = self.agreement.by_task(merged.candidate)
        except MergingError as error:  # it diverged
            log.warning("not chosen: %s", error)
            return TriedValue(value=value)
        if not self.settings.tuning.oracle:
            return TriedValue(value=value, agreement=shares)
        seen = self.problem.scorer.score(merged.candidate).seen
        average = fmean(task.accuracy for task in seen.values())
        return TriedValue(value=value, agreement=shares, average=average)

    def _learned(self, method: LearnedMethod) -> Merged:
        learned, shared = self._learn(method)
        experts = {
            task: Expert(self.zoo.experts[task].state, head) for task, head in learned.heads.items()
        }
        zoo = replace(self.zoo, experts={**self.zoo.experts, **experts}) if experts else self.zoo
        meter = self.meter()
        with meter.phase("merging"):
            state = learned.state(method.settings.anchor)
        candidate = Candidate.of_state(method.settings.title, zoo, state, keep=False)
        about = method.about(self.settings.labels)
        own = learned.expense + meter.expense
        return Merged(method.name, candidate, about, state, learned, shared=shared, own=own)

    def _learn(self, method: LearnedMethod) -> tuple[LearnedCoefficients, Expense]:
        """What a method learns, and the work that it shares with others."""
        if method.settings.learner == "released_code":
            return learn_as_released(self.step, method, self.bank), self._of_bank
        parts, shared = self.mergeable(method)
        targets, labelling = self._targets_of(method.labels(self.settings.labels))
        if method.settings.objective != "entropy":  # which asks no teacher
            shared += labelling
        if method.settings.episodes:
            return learn_in_episodes(self.step, method, self.bank, parts, targets), shared
        return self.step.learn(method, parts, targets), shared

    def mergeable(self, method: LearnedMethod) -> tuple[Mergeable, Expense]:
        """What coefficients of a method are learned for, with its statistics.

        The first method tells what they took to all others that ask for the same.
        """
        meter = self.meter()
        with meter.phase("statistics"):
            parts = mergeable(self.settings, self.problem, self.bank, method)
        chosen = method.settings
        spectral = (chosen.spectral or self.settings.spectral).model_dump_json()
        asked = (chosen.density, spectral if chosen.granularity == "singular_wise" else "")
        return parts, self._of_bank + self._of_statistics.setdefault(asked, meter.expense)

    def _fixed(self, method: Method) -> Merged:
        about = _about(method)
        if method.returns != "state dict":
            candidate, own = self._not_static(method)
            return Merged(method.name, candidate, about, shared=self._of_bank, own=own)
        state, shared, own = self._state(method)
        candidate = Candidate.of_state(method.heading, self.zoo, state)
        shared += self._of_bank
        return Merged(method.name, candidate, about, state, shared=shared, own=own)

    def _state(self, method: Method) -> tuple[StateDict, Expense, Expense]:
        """Weights of a method that gives one static model; work on its evidence, and its own."""
        state: StateDict
        evidence, shared, meter = None, Expense(), self.meter()
        if isinstance(method, ProDistill):
            with meter.phase("learning"):
                state, cost = distilled_weights(method, self.zoo, self.bank, self.images)
            meter.count(cost)
            return state, shared, meter.expense
        if isinstance(method, EvidenceMethod):
            known = self._activations if method.needs == "activations" else self._gradients
            evidence, shared = known
        with meter.phase("merging"):
            if isinstance(method, DataFreeMethod):
                state = method.merge(self.bank)
            elif isinstance(method, EvidenceMethod):
                assert evidence is not None
                state = method.merge(self.bank, evidence)
            elif isinstance(method, RegMeanPlusPlus | FeatCal):
                state, cost = self._block_by_block(method)
                meter.count(cost)
            else:
                raise MergingError(f"{method.name}: this kind of method cannot be run here")
        return state, shared, meter.expense

    def _block_by_block(self, method: RegMeanPlusPlus | FeatCal) -> tuple[StateDict, Cost]:
        """Weights of a closed form whose evidence on a block needs the merged blocks before it."""
        # Every block sees the images anew.
        images = len(merged_blocks(self.bank, method.title)) * self._sampled(method.images_per_task)
        if isinstance(method, RegMeanPlusPlus):
            grams = block_grams(self.zoo, self.images, images_per_task=method.images_per_task)
            return method.merge(self.bank, grams), Cost(images=images, forward_passes=images)
        moments = block_moments(
            self.zoo,
            self.images,
            images_per_task=method.images_per_task,
            other_tokens=method.other_tokens,
        )
        return method.merge(self.bank, moments), Cost(images=images, forward_passes=2 * images)

    def _not_static(self, method: Method) -> tuple[Candidate, Expense]:
        """A method that gives one model per task, adapters or a router, and the work on it."""
        meter, per_task = self.meter(), self.settings.trainer.images_per_task
        if isinstance(method, PerTaskMethod):
            with meter.phase("merging"):
                candidate = Candidate(method.title, self.zoo, method.merge(self.bank), keep=False)
        elif isinstance(method, WeightEnsemblingMoE):
            with meter.phase("learning"):
                candidate, cost = routed_experts(method, self.zoo, self.bank, self.images, per_task)
            meter.count(cost)
        elif isinstance(method, TwinMerging):
            with meter.phase("learning"):
                candidate, cost = twin_experts(method, self.zoo, self.bank, self.images)
            meter.count(cost)
        else:
            raise MergingError(f"{method.name}: this kind of method cannot be run here")
        return candidate, meter.expense

    def _corrected(self, method: RepresentationSurgery) -> Merged:
        """Task arithmetic, with a correction of its features in front of every head."""
        meter = self.meter()
        with meter.phase("merging"):
            state = Weights(task_arithmetic(self.bank))
        base = Candidate(method.title, self.zoo, dict.fromkeys(self.images, state), keep=False)
        merged = Merged(method.name, base, _about(method), shared=self._of_bank, own=meter.expense)
        merged = self.recalibration.of(merged)  # the corrections fit the statistics
        meter = self.meter()
        with meter.phase("learning"):
            candidate, cost = corrected_features(method, merged.candidate, self.images)
        meter.count(cost)
        return replace(merged, candidate=candidate, own=merged.own + meter.expense)


def _about(method: Method) -> dict[str, Any]:
    return {
        "title": method.heading,
        "needs": method.needs,
        "returns": method.returns,
        "parameters": asdict(method),
    }
