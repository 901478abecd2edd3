"""From the config's methods to merged models: gives each kind of method what it needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from torch import Tensor

from statsmerging.data.images import ImageSplit
from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.learning.episodes import learn_in_episodes
from statsmerging.learning.fit import LearnedCoefficients, LearningStep, mergeable
from statsmerging.learning.labels import Teacher, entropy, learning_targets, teacher_scores
from statsmerging.learning.problem import MergingProblem
from statsmerging.learning.released_code import learn_as_released
from statsmerging.learning.settings import MergingSettings
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods import (
    DataFreeMethod,
    Evidence,
    EvidenceMethod,
    Method,
    PerTaskMethod,
    task_arithmetic,
)
from statsmerging.merging.methods.regmean_plus_plus import RegMeanPlusPlus
from statsmerging.merging.methods.surgery import RepresentationSurgery
from statsmerging.merging.methods.wemoe import WeightEnsemblingMoE
from statsmerging.runs.results import LayerKind, LayerMovement
from statsmerging.scoring.evidence import block_grams, fisher_diagonals, gram_matrices
from statsmerging.scoring.scores import Candidate, TeacherAgreement
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import CorrectedHead

log = logging.getLogger(__name__)

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
    """

    name: str
    candidate: Candidate
    about: dict[str, Any]
    state: StateDict | None = None
    learned: LearnedCoefficients | None = None

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


class Merger:
    """Runs methods on one bank; what several of them need is computed once.

    Args:
        checkpoints: folder for those of the learning steps.
        curves: name of a method → loggers of its learning curves.
    """

    def __init__(
        self,
        settings: MergingSettings,
        problem: MergingProblem,
        bank: TaskVectorBank,
        checkpoints: Path,
        curves: Callable[[str], Sequence[Logger]],
    ) -> None:
        self.settings = settings
        self.problem = problem
        self.zoo = problem.zoo
        self.bank = bank
        self.images = problem.learning_images()
        self.step = LearningStep(settings, problem, self.images, checkpoints, curves)

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
            return self._learned(method)
        return self._fixed(method.method)

    @cached_property
    def teachers(self) -> dict[str, Tensor]:
        """Task → its teacher's scores on its learning images."""
        return teacher_scores(self._teachers, self.problem.cache)

    @cached_property
    def _targets(self) -> dict[str, Tensor]:
        return learning_targets(self.settings.labels, self._teachers, self.problem.cache)

    @cached_property
    def agreement(self) -> TeacherAgreement:
        """Agreement with the teachers on some learning images, the same for all methods."""
        count = self.settings.tuning.images_per_task
        images = {task: split.sample(count) for task, split in self.images.items()}
        teachers = {task: teacher.on_sample(count) for task, teacher in self._teachers.items()}
        scores = teacher_scores(teachers, self.problem.cache)
        return TeacherAgreement(images, scores, self.problem.cache)

    @cached_property
    def _teachers(self) -> dict[str, Teacher]:
        return self.problem.teachers(self.settings.heterogeneous.labels_from)

    @cached_property
    def _activations(self) -> Evidence:
        return gram_matrices(self.zoo, self.images)

    @cached_property
    def _gradients(self) -> Evidence:
        return fisher_diagonals(self.zoo, self.images, seed=self.settings.seed)

    def tuned(self, method: LearnedMethod | FixedMethod, configured: Merged) -> Tuned | None:
        """The candidate that agrees most with the teachers, of equal ones the first; or no grid.

        Args:
            configured: the method with its configured values, which may be in the grid.
        """
        best, highest = None, -1.0
        for candidate in method.candidates():
            merged = configured if candidate == method else self.as_configured(candidate)
            try:
                agreement = self.agreement.of(merged.candidate)
            except MergingError as error:  # it diverged
                log.warning("not chosen: %s", error)
                continue
            if agreement > highest:  # two models are held at a time, not the whole grid
                best, highest = Tuned(candidate, merged), agreement
        if best is None:
            return None
        about = {**best.merged.about, "title": f"{best.merged.about['title']}, tuned"}
        return replace(best, merged=replace(best.merged, name=f"{method.name}_tuned", about=about))

    def _learned(self, method: LearnedMethod) -> Merged:
        settings = method.settings
        if settings.learner == "released_code":
            return self._as_released(method)
        parts = mergeable(self.settings, self.problem, self.bank, method)
        if settings.episodes:
            learned = learn_in_episodes(self.step, method, self.bank, parts, self._targets)
        else:
            learned = self.step.learn(method, parts, self._targets)
        state = learned.state(settings.anchor)
        candidate = Candidate.of_state(settings.title, self.zoo, state, keep=False)
        about = method.about(self.settings.labels)
        return Merged(method.name, candidate, about, state, learned)

    def _as_released(self, method: LearnedMethod) -> Merged:
        """A model with trained heads, as the published code learns it."""
        learned, heads = learn_as_released(self.step, method, self.bank)
        experts = {task: Expert(self.zoo.experts[task].state, head) for task, head in heads.items()}
        zoo = replace(self.zoo, experts={**self.zoo.experts, **experts})
        state = learned.state(method.settings.anchor)
        candidate = Candidate.of_state(method.settings.title, zoo, state, keep=False)
        about = method.about(self.settings.labels)
        return Merged(method.name, candidate, about, state, learned)

    def _fixed(self, method: Method) -> Merged:
        about = {
            "title": method.title,
            "needs": method.needs,
            "returns": method.returns,
            "parameters": asdict(method),
        }
        if method.returns != "state dict":
            return Merged(method.name, self._not_static(method), about)
        state = self._state(method)
        candidate = Candidate.of_state(method.title, self.zoo, state)
        return Merged(method.name, candidate, about, state)

    def _state(self, method: Method) -> StateDict:
        """Weights of a method that gives one static model."""
        if isinstance(method, DataFreeMethod):
            return method.merge(self.bank)
        if isinstance(method, EvidenceMethod):
            evidence = self._activations if method.needs == "activations" else self._gradients
            return method.merge(self.bank, evidence)
        if isinstance(method, RegMeanPlusPlus):
            grams = block_grams(self.zoo, self.images, images_per_task=method.images_per_task)
            return method.merge(self.bank, grams)
        raise MergingError(f"{method.name}: this kind of method cannot be run here")

    def _not_static(self, method: Method) -> Candidate:
        """A method that gives one model per task, adapters or a router."""
        if isinstance(method, PerTaskMethod):
            return Candidate(method.title, self.zoo, method.merge(self.bank), keep=False)
        if isinstance(method, RepresentationSurgery):
            return corrected_features(method, self.zoo, self.bank, self.images)
        if isinstance(method, WeightEnsemblingMoE):
            return routed_experts(
                method, self.zoo, self.bank, self.images, self.settings.trainer.images_per_task
            )
        raise MergingError(f"{method.name}: this kind of method cannot be run here")


def corrected_features(
    method: RepresentationSurgery,
    zoo: Zoo,
    bank: TaskVectorBank,
    images: Mapping[str, ImageSplit],
) -> Candidate:
    """Task arithmetic, with a correction of its features in front of every head.

    Args:
        images: seen task → unlabeled images.
    """
    state = task_arithmetic(bank)
    experts = {task: zoo.experts[task].state for task in images}

    def features(weights: Mapping[str, Tensor], task: str) -> Tensor:
        return zoo.network.features(weights, images[task].images, description=f"features of {task}")

    corrections = method.fit(
        {task: features(state, task) for task in images},
        {task: features(expert, task) for task, expert in experts.items()},
    )
    corrected = {
        task: Expert(experts[task], CorrectedHead(zoo.experts[task].head, correction))
        for task, correction in corrections.items()
    }
    return Candidate.of_state(method.title, replace(zoo, experts=corrected), state, keep=False)


def routed_experts(
    method: WeightEnsemblingMoE,
    zoo: Zoo,
    bank: TaskVectorBank,
    images: Mapping[str, ImageSplit],
    images_per_task: int,
) -> Candidate:
    """Routers, trained by the entropy of the predictions.

    Args:
        images: seen task → unlabeled images.
        images_per_task: images of each task in one step.
    """
    data = UnlabeledDataModule(
        {task: split.images for task, split in images.items()},
        images_per_task=images_per_task,
        steps_per_epoch=method.steps,
        seed=method.seed,
    )
    heads = {task: zoo.experts[task].head.to(zoo.device) for task in images}

    def batches() -> Iterator[dict[str, Tensor]]:
        for batch in data.train_dataloader():
            inputs = zoo.preprocess.normalise(batch.images.to(zoo.device))
            yield dict(zip(heads, inputs.split(images_per_task), strict=True))

    model = method.fit(
        zoo.network.frozen(),
        bank,
        batches(),
        lambda task, features: entropy(heads[task](features)),
    )
    routed = replace(zoo, network=replace(zoo.network, module=model))
    return Candidate.of_state(method.title, routed, model.state_dict(), keep=False)
