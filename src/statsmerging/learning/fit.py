"""The learning step of a run: task vectors and teachers' labels in, coefficients out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.choices import Feature, Source
from statsmerging.data.images import ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.chosen_methods import LearnedMethod
from statsmerging.learning.cost import Expense, LearningClock, Meter, seconds_before
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.problem import MergingProblem, at_density
from statsmerging.learning.settings import (
    MergingSettings,
)
from statsmerging.learning.trained_vectors import StudentWithTrainedVectors
from statsmerging.learning.trainer import continue_from, create_trainer
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.decomposition import Decomposition
from statsmerging.merging.direction_learner import DirectionLearner
from statsmerging.merging.directions import DirectionStatistics, direction_statistics
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.mask_learner import MaskLearner
from statsmerging.merging.merged_model import Bank, MergedModel
from statsmerging.merging.relations import (
    RELATION_COLUMNS,
    place_statistics,
    relation_statistics,
)
from statsmerging.merging.statistics import LayerStatistics, layer_statistics, statistic_columns
from statsmerging.runs.cost import Cost
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of


@dataclass(frozen=True)
class Fitted:
    """What a training tells besides what it has trained.

    Attributes:
        gradient_norm: of the learner in the last step.
        expense: of all steps, those before a kill included.
    """

    gradient_norm: float
    expense: Expense


@dataclass(frozen=True)
class LearningStep:
    """Learns the coefficients of a run's methods; the methods share images, steps and seeds.

    Attributes:
        images: seen task → its unlabeled learning images.
        checkpoints: the folder for them.
        curves: name of a method → loggers of its learning curves.
    """

    settings: MergingSettings
    problem: MergingProblem
    images: Mapping[str, ImageSplit]
    checkpoints: Path
    curves: Callable[[str], Sequence[Logger]]

    def meter(self) -> Meter:
        """A meter for work on this problem."""
        return Meter(self.problem.zoo.device, self.problem.cache)

    def learn(
        self,
        method: LearnedMethod,
        parts: Mergeable,
        targets: Mapping[str, Tensor],
    ) -> LearnedCoefficients:
        """Train the learner of a method.

        A run that was killed continues from its last checkpoint and ends at the same coefficients.

        Args:
            method: what is learned, and from what.
            parts: what is merged, and its statistics: ``mergeable``.
            targets: seen task → the scores to be learned on its images, N × C.

        Raises:
            UserError: several processes with a setting that needs one.
        """
        self.check_processes(method)
        settings, zoo = self.settings, self.problem.zoo
        module = StatsMerging(
            self.learner(method, parts.statistics),
            self.student(method, parts.bank),
            {task: zoo.experts[task].head for task in parts.bank.tasks},
            targets,
            zoo.preprocess,
            method.labels(settings.labels),
            method.settings.objective,
            method.trainer(settings.trainer),
            method.settings.trains,
        )
        return self.result(module, parts.bank, self.fit(module, method))

    def check_processes(self, method: LearnedMethod) -> None:
        """Raise ``UserError`` for a setting that several processes cannot share.

        Or that gives the learner its gradient and trained heads none, task by task.
        """
        settings = self.settings
        trains_heads = method.settings.trains != "coefficients"
        if trains_heads and settings.trainer.devices > 1:
            raise UserError(f"method {method.name} needs trainer.devices=1")
        if trains_heads and settings.trainer.accumulate == "per_task":
            raise UserError(f"method {method.name} needs trainer.accumulate=joint")
        if settings.trainer.devices > 1 and method.labels(settings.labels).leaves_out:
            # Each process would divide by the number of its own confident images.
            raise UserError("labels.min_confidence and unless_surer need trainer.devices=1")
        if settings.trainer.devices > 1 and settings.merge.memory_map:
            raise UserError("merge.memory_map needs trainer.devices=1; processes share the memory")

    @torch.no_grad()
    def result(self, module: StatsMerging, bank: Bank, fitted: Fitted) -> LearnedCoefficients:
        """What was learned, with the coefficients of all seen experts."""
        student = module.student
        # A learner that stays has no gradient, which is no sign of trouble.
        stays = not any(weight.requires_grad for weight in module.learner.parameters())
        return LearnedCoefficients(
            module.learner,
            bank,
            module.learner().cpu(),
            math.nan if stays else fitted.gradient_norm,
            student.trained() if isinstance(student, StudentWithTrainedVectors) else {},
            module.trained_heads(),
            fitted.expense,
        )

    def learner(
        self,
        method: LearnedMethod,
        statistics: LayerStatistics | DirectionStatistics,
        scaled_by: Sequence[DirectionStatistics] | None = None,
    ) -> StatsMergeLearner | DirectionLearner | MaskLearner:
        """The method's learner before its first step.

        Args:
            scaled_by: see ``DirectionLearner``.
        """
        settings, chosen = self.settings, method.settings
        assert chosen.learner != "released_code"  # it has another module
        generator = torch.Generator().manual_seed(settings.seed)
        if isinstance(statistics, DirectionStatistics):
            if chosen.learner == "masks":
                return MaskLearner(statistics, start=chosen.start, scale=chosen.scale)
            return DirectionLearner(
                statistics,
                kind=chosen.learner,
                vectors=chosen.vectors,
                hidden=settings.learner.hidden,
                scale=chosen.scale,
                vector_scale=chosen.vector_scale,
                start=chosen.start,
                generator=generator,
                scaled_by=scaled_by,
            )
        assert chosen.learner != "masks"  # they are of directions
        return StatsMergeLearner(
            statistics,
            chosen.granularity,
            kind=chosen.learner,
            standardise=settings.statistics.standardise,
            link=chosen.link,
            hidden=settings.learner.hidden,
            scale=chosen.scale,
            anchor=chosen.anchor,
            start=chosen.start,
            vectors=chosen.vectors,
            vector_scale=chosen.vector_scale,
            generator=generator,
        )

    def student(self, method: LearnedMethod, bank: Bank) -> MergedModel:
        """The zoo's backbone as a function of coefficients, with the method's anchor."""
        kind = StudentWithTrainedVectors if method.settings.vectors == "trained" else MergedModel
        return kind(
            self.problem.zoo.network.frozen(),
            bank,
            method.settings.anchor,
            compiled=self.settings.merge.compile,
        )

    def fit(
        self,
        module: StatsMerging,
        method: LearnedMethod,
        callbacks: Sequence[Callback] = (),
        tasks: Callable[[int], Sequence[int]] | None = None,
    ) -> Fitted:
        """Train the module, from its last checkpoint if a killed run has left one.

        Args:
            tasks: see ``UnlabeledDataModule``.
        """
        settings, problem = self.settings.trainer, self.problem
        data = UnlabeledDataModule(
            {task: split.images for task, split in self.images.items()},
            images_per_task=settings.images_per_task,
            steps_per_epoch=settings.steps_per_epoch,
            seed=settings.seed,
            tasks=tasks,
        )
        # Named after weights and images, so that a run never continues from those of another.
        sources = [*problem.weight_hashes.values(), *problem.images.fingerprints().values()]
        checkpoint = self.checkpoints / f"{method.name}-{key_of(sources)}.ckpt"
        start = continue_from(checkpoint)
        before = seconds_before(start)
        trainer = create_trainer(
            accelerator=self.settings.accelerator,
            epochs=settings.steps // settings.steps_per_epoch,
            description=f"learning coefficients of {method.settings.title}",
            callbacks=[LearningClock(before.seconds.get("learning", 0.0)), *callbacks],
            loggers=self.curves(method.name),
            checkpoint=checkpoint,
            devices=settings.devices,
        )
        meter = self.meter()
        with meter.phase("learning", alone=settings.devices == 1):
            trainer.fit(module, data, ckpt_path=start, weights_only=True)
        # Lightning leaves everything on the CPU, and further methods merge the same bank.
        module.student.to(problem.zoo.device)
        # The step may have been another process's, or one of the killed run's.
        norm = trainer.callback_metrics.get("learner_gradient_norm", module.gradient_norm)
        images = data.sampler.images(settings.steps)
        cost = Cost(
            images=images,
            forward_passes=module.passes * images,
            backward_passes=module.passes * images,
            parameters=sum(weight.numel() for weight in module.trained()),
        )
        return Fitted(float(norm), Expense(cost, before) + meter.expense)


@dataclass(frozen=True)
class Mergeable:
    """What coefficients are learned for, and the statistics they are learned from."""

    bank: Bank
    statistics: LayerStatistics | DirectionStatistics


def mergeable(
    settings: MergingSettings, problem: MergingProblem, bank: TaskVectorBank, method: LearnedMethod
) -> Mergeable:
    """A bank at the granularity of the method, with statistics.

    Args:
        bank: whole task vectors; they are trimmed here to the density of the method.
    """
    density = method.settings.density
    # Before the bank: both trim, and three banks would be in memory at once.
    statistics = run_statistics(settings, problem, bank, density)
    return at_granularity(settings, problem, method, at_density(bank, density), statistics)


def at_granularity(
    settings: MergingSettings,
    problem: MergingProblem,
    method: LearnedMethod,
    bank: TaskVectorBank,
    statistics: LayerStatistics,
) -> Mergeable:
    """A bank and the statistics of its layers, or its singular directions and theirs.

    Args:
        bank: task vectors of the problem's experts or of some of them, at the method's density.
    """
    if method.settings.granularity != "singular_wise":
        return Mergeable(bank, statistics)
    chosen = method.settings.spectral or settings.spectral
    decomposition = Decomposition(
        rank=chosen.rank,
        budget=chosen.budget,
        orthonormal=chosen.orthonormal,
        split_attention=chosen.split_attention,
        dtype=getattr(torch, settings.merge.precision),
    )
    hashes = task_vector_hashes(settings, problem, bank, method.settings.density)
    directions = problem.directions.of(bank, decomposition, hashes)
    of_directions = direction_statistics(directions).beside(statistics)
    features = settings.spectral.seen_features
    if "relations" in features:
        of_directions = of_directions.beside(relation_statistics(bank))
    return Mergeable(directions, of_directions.select(features))


def run_statistics(
    settings: MergingSettings,
    problem: MergingProblem,
    bank: TaskVectorBank,
    density: float | None,
) -> LayerStatistics:
    """The statistics that the config asks for.

    Args:
        bank: whole task vectors; they are trimmed here, as the key in the cache promises.
        density: of the task vectors as a method sees them, see ``at_density``.
    """
    return cached_layer_statistics(
        at_density(bank, density),
        key_of(task_vector_hashes(settings, problem, bank, density)),
        problem.cache,
        of=settings.statistics.of,
        rank=settings.statistics.rank,
        features=settings.statistics.features,
    )


def task_vector_hashes(
    settings: MergingSettings,
    problem: MergingProblem,
    bank: TaskVectorBank,
    density: float | None,
) -> list[str]:
    """What the task vectors of a method depend on: weights, precision and density."""
    names = ["pretrained", *(f"{task}/backbone" for task in bank.tasks)]
    hashes = [problem.zoo.hashes[name] for name in names]
    return [*hashes, settings.merge.precision, f"density {density}"]


def cached_layer_statistics(
    bank: TaskVectorBank,
    bank_hash: str,
    cache: Cache,
    *,
    of: Source,
    rank: int,
    features: Sequence[Feature],
) -> LayerStatistics:
    """The named features of the bank, read from the cache if these weights were seen before.

    Args:
        bank_hash: content hash of the weights the bank was built from, and of their order.
        of: whose mean, variance, magnitude and singular values; the others are of task vectors.
    """

    def cached(key: str, values: Callable[[], Tensor]) -> Tensor:
        return cache.load(
            "statistics",
            f"{key}.safetensors",
            write=lambda path: save_file({"values": values()}, path),
            read=lambda path: load_file(path)["values"],
        )

    weights = cached(
        key_of([bank_hash, of, str(rank)]), lambda: layer_statistics(bank, of=of, rank=rank).values
    )
    statistics = LayerStatistics(
        weights, statistic_columns(rank), bank.layers, bank.tasks, bank.vector_layers
    )
    if set(features) & set(RELATION_COLUMNS):
        relations = cached(
            key_of([bank_hash, "relations"]), lambda: relation_statistics(bank).values
        )
        statistics = statistics.beside(
            LayerStatistics(relations, RELATION_COLUMNS, bank.layers, bank.tasks)
        )
    return statistics.beside(place_statistics(bank.layers, bank.tasks)).select(features)
