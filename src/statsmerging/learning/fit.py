"""The learning step of a run: task vectors and teachers' labels in, coefficients out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from statsmerging.choices import Accelerator, Standardise
from statsmerging.data.images import Images, ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.chosen_methods import LearnedMethod
from statsmerging.learning.cost import Expense, LearningClock, Meter, seconds_before
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.mergeable import Mergeable
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.problem import MergingProblem
from statsmerging.learning.settings import LearnedMethodSettings, MergingSettings
from statsmerging.learning.trained_vectors import StudentWithTrainedVectors
from statsmerging.learning.trainer import continue_from, create_trainer
from statsmerging.merging.direction_learner import DirectionLearner
from statsmerging.merging.directions import DirectionStatistics
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.mask_learner import MaskLearner
from statsmerging.merging.merged_model import Bank, MergedModel
from statsmerging.merging.statistics import LayerStatistics
from statsmerging.runs.cost import Cost
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
        learner = self.learner(method, parts.statistics)
        module = StatsMerging(
            learner,
            self.student(method, parts.bank),
            {task: zoo.experts[task].head for task in parts.bank.tasks},
            targets,
            zoo.preprocess.normalise,
            method.labels(settings.labels),
            method.settings.objective,
            method.trainer(settings.trainer),
            method.settings.trains,
        )
        return learned(module, learner, parts.bank, self.fit(module, method))

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

    def learner(
        self,
        method: LearnedMethod,
        statistics: LayerStatistics | DirectionStatistics,
        scaled_by: Sequence[DirectionStatistics] | None = None,
    ) -> StatsMergeLearner | DirectionLearner | MaskLearner:
        """The method's learner before its first step; see ``create_learner``."""
        settings = self.settings
        return create_learner(
            method.settings,
            statistics,
            hidden=settings.learner.hidden,
            standardise=settings.statistics.standardise,
            seed=settings.seed,
            scaled_by=scaled_by,
        )

    def student(self, method: LearnedMethod, bank: Bank) -> MergedModel:
        """The zoo's backbone as a function of coefficients, with the method's anchor."""
        backbone = self.problem.zoo.network.frozen()
        return create_student(method.settings, backbone, bank, self.settings.merge.compile)

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
        # Named after weights and images, so that a run never continues from those of another.
        sources = [*problem.weight_hashes.values(), *problem.images.fingerprints().values()]
        checkpoint = self.checkpoints / f"{method.name}-{key_of(sources)}.ckpt"
        start = continue_from(checkpoint)
        before = seconds_before(start)
        meter = self.meter()
        with meter.phase("learning", alone=settings.devices == 1):
            norm, images = train(
                module,
                {task: split.images for task, split in self.images.items()},
                accelerator=self.settings.accelerator,
                device=problem.zoo.device,
                description=f"learning coefficients of {method.settings.title}",
                callbacks=[LearningClock(before.seconds.get("learning", 0.0)), *callbacks],
                loggers=self.curves(method.name),
                checkpoint=checkpoint,
                start=start,
                tasks=tasks,
            )
        cost = Cost(
            images=images,
            forward_passes=module.passes * images,
            backward_passes=module.passes * images,
            parameters=sum(weight.numel() for weight in module.trained()),
        )
        return Fitted(norm, Expense(cost, before) + meter.expense)


@torch.no_grad()
def learned(
    module: StatsMerging,
    learner: StatsMergeLearner | DirectionLearner | MaskLearner,
    bank: Bank,
    fitted: Fitted,
) -> LearnedCoefficients:
    """What a module has learned, with the coefficients of all seen experts.

    Args:
        learner: that of the module.
    """
    student = module.student
    # A learner that stays has no gradient, which is no sign of trouble.
    stays = not any(weight.requires_grad for weight in learner.parameters())
    return LearnedCoefficients(
        learner,
        bank,
        learner().cpu(),
        math.nan if stays else fitted.gradient_norm,
        student.trained() if isinstance(student, StudentWithTrainedVectors) else {},
        module.trained_heads(),
        fitted.expense,
    )


def create_learner(
    method: LearnedMethodSettings,
    statistics: LayerStatistics | DirectionStatistics,
    *,
    hidden: int,
    standardise: Standardise,
    seed: int,
    scaled_by: Sequence[DirectionStatistics] | None = None,
) -> StatsMergeLearner | DirectionLearner | MaskLearner:
    """A learner before its first step.

    Args:
        hidden: width of its hidden layer.
        standardise: see ``LayerStatistics.standardised``.
        seed: of its initial weights.
        scaled_by: see ``DirectionLearner``.
    """
    assert method.learner != "released_code"  # it has another module
    generator = torch.Generator().manual_seed(seed)
    if isinstance(statistics, DirectionStatistics):
        if method.learner == "masks":
            return MaskLearner(statistics, start=method.start, scale=method.scale)
        return DirectionLearner(
            statistics,
            kind=method.learner,
            vectors=method.vectors,
            hidden=hidden,
            scale=method.scale,
            vector_scale=method.vector_scale,
            start=method.start,
            generator=generator,
            scaled_by=scaled_by,
        )
    assert method.learner != "masks"  # they are of directions
    return StatsMergeLearner(
        statistics,
        method.granularity,
        kind=method.learner,
        standardise=standardise,
        link=method.link,
        hidden=hidden,
        scale=method.scale,
        anchor=method.anchor,
        start=method.start,
        vectors=method.vectors,
        vector_scale=method.vector_scale,
        generator=generator,
    )


def create_student(
    method: LearnedMethodSettings, backbone: nn.Module, bank: Bank, compiled: bool = False
) -> MergedModel:
    """A backbone as a function of coefficients; see ``MergedModel``."""
    kind = StudentWithTrainedVectors if method.vectors == "trained" else MergedModel
    return kind(backbone, bank, method.anchor, compiled=compiled)


def train(
    module: StatsMerging,
    inputs: Mapping[str, Images],
    *,
    accelerator: Accelerator,
    device: torch.device,
    description: str,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    checkpoint: Path | None = None,
    start: Path | None = None,
    tasks: Callable[[int], Sequence[int]] | None = None,
    progress: bool = True,
) -> tuple[float, int]:
    """Train a module to the last of its steps.

    Args:
        inputs: task → its unlabeled images or other inputs, N × ….
        device: where the student is afterwards.
        description: shown beside the progress bar.
        checkpoint: where to leave one after every epoch; ``None``: nowhere.
        start: a checkpoint to continue from.
        tasks: see ``UnlabeledDataModule``.
        progress: whether the bar is shown.

    Returns:
        Norm of the learner's gradient in the last step, and how many inputs all steps saw.
    """
    settings = module.settings
    data = UnlabeledDataModule(
        inputs,
        images_per_task=settings.images_per_task,
        steps_per_epoch=settings.steps_per_epoch,
        seed=settings.seed,
        tasks=tasks,
    )
    trainer = create_trainer(
        accelerator=accelerator,
        epochs=settings.steps // settings.steps_per_epoch,
        description=description,
        callbacks=callbacks,
        loggers=loggers,
        checkpoint=checkpoint,
        devices=settings.devices,
        progress=progress,
    )
    trainer.fit(module, data, ckpt_path=start, weights_only=True)
    # Lightning leaves everything on the CPU, and further methods merge the same bank.
    module.student.to(device)
    # The step may have been another process's, or one of the killed run's.
    norm = trainer.callback_metrics.get("learner_gradient_norm", module.gradient_norm)
    return float(norm), data.sampler.images(settings.steps)
