"""Settings of the learning step, and of the distillation of other architectures before it."""

from __future__ import annotations

from typing import Self, get_args

from pydantic import (
    Field,
    FilePath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from statsmerging.choices import (
    DIRECTION_FEATURES,
    PREDICTING,
    Accelerator,
    Accumulate,
    Anchor,
    DirectionFeature,
    DistillationSplit,
    Feature,
    Granularity,
    LabelKind,
    LabelsFrom,
    LearnerKind,
    Link,
    MethodLearner,
    Objective,
    Precision,
    Restrict,
    RunningStatistics,
    Source,
    Standardise,
    Trains,
    TuningRule,
    VectorCoefficients,
)
from statsmerging.data.settings import CorruptionSettings, LearningSettings
from statsmerging.settings import Settings
from statsmerging.zoo.settings import (
    BackboneSettings,
    FinetunedZooSettings,
    TrainingSettings,
    ZooSettings,
)


class LabelsSettings(Settings):
    """How a teacher's scores become the learning target.

    Attributes:
        kind: ``hard``, cross-entropy against the teacher's arg-max; ``soft``,
            KL(teacher ‖ student) at temperature τ, times τ²; ``ground_truth``, cross-entropy
            against the data set's labels, which is no label-free learning any more.
        temperature: τ; it has no effect on hard labels.
        min_confidence: images on which the teacher's top probability is lower are left out.
        unless_surer: images on which the merged model is surer of another class than the teacher
            is of its own are left out (SyMerge).
        restrict: ``task``, probabilities over the classes of the image's own task; ``none``, over
            those of all seen tasks, as if the task of an image were not known.
    """

    kind: LabelKind = "hard"
    temperature: PositiveFloat = 1.0
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    unless_surer: bool = False
    restrict: Restrict = "task"

    @model_validator(mode="after")
    def _ground_truth_is_never_cleaned(self) -> Self:
        cleaned = self.min_confidence > 0 or self.unless_surer or self.restrict != "task"
        if self.kind == "ground_truth" and cleaned:
            raise ValueError(
                "ground_truth needs min_confidence=0, unless_surer=false and restrict=task"
            )
        return self

    @property
    def leaves_out(self) -> bool:
        """Whether some images may not count."""
        return self.min_confidence > 0 or self.unless_surer


class DirectionsSettings(Settings):
    """Singular directions, see ``merging.Decomposition``."""

    rank: PositiveInt | None = None
    budget: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    orthonormal: bool = True
    split_attention: bool = False


#: What singular directions can have, where other granularities have more choices.
_OF_DIRECTIONS: dict[str, tuple[str, ...]] = {
    "learner": (*get_args(LearnerKind), "masks"),
    "link": ("identity",),
    "anchor": ("pretrained",),
}


class LearnedMethodSettings(Settings):
    """A method that learns coefficients; statistics, labels and trainer are settings of the run.

    Attributes:
        title: name in tables.
        granularity: one coefficient per layer and task, per task, or per singular direction.
        learner: how coefficients are made, see ``StatsMergeLearner``; ``masks``, see
            ``MaskLearner``; ``released_code`` learns as the published code does, with ground truth.
        link: what follows the learner's network; of singular directions ``identity``.
        anchor: how coefficients become weights; of singular directions ``pretrained``.
        scale: factor on the network's output.
        start: λ before the first step; ``None``: 0.3 with the anchor, 1/K without it; of singular
            directions 1, and 0.3 if they are raw.
        vectors: coefficients of layers that are no matrices, see ``DirectionLearner`` and
            ``StudentWithTrainedVectors``.
        vector_scale: factor on the network's output for such layers.
        objective: what the merged model learns from.
        learning_rate: of AdamW, following a cosine to zero.
        density: share of entries kept of each task vector beforehand, as in TIES, where tensors
            that no expert changed do not count; ``None`` keeps all.
        tune: learning rates tried by teacher agreement, for a row of their own.
        episodes: number of subsets of the experts, of which every step merges one; ``None`` or 0:
            every step merges all experts.
        trains: what learns; a run with heads among it is stamped.
        labels: how teachers' scores become its targets; ``None``: as the run says.
        spectral: its singular directions; ``None``: as the run says.
        sharpness: ρ of its sharpness-aware steps; ``None``: as the run says.
        relative_sharpness: see ``TrainerSettings``; it goes with a sharpness of its own.
    """

    title: str
    granularity: Granularity
    learner: MethodLearner
    link: Link
    anchor: Anchor
    scale: PositiveFloat
    start: float | None
    vectors: VectorCoefficients = "learned"
    vector_scale: PositiveFloat = 1.0
    objective: Objective
    learning_rate: NonNegativeFloat
    density: float | None = Field(gt=0, le=1)
    tune: list[NonNegativeFloat] | None
    episodes: NonNegativeInt | None = None
    trains: Trains = "coefficients"
    labels: LabelsSettings | None = None
    spectral: DirectionsSettings | None = None
    sharpness: NonNegativeFloat | None = None
    relative_sharpness: bool = False

    @field_validator("labels")
    @classmethod
    def _from_teachers(cls, labels: LabelsSettings | None) -> LabelsSettings | None:
        if labels is not None and labels.kind == "ground_truth":
            raise ValueError("kind=ground_truth is a setting of the run, which is stamped so")
        return labels

    @field_validator("trains")
    @classmethod
    def _heads_learn_in_every_step(cls, trains: Trains, info: ValidationInfo) -> Trains:
        if trains != "coefficients" and info.data.get("episodes"):
            raise ValueError("needs episodes=null; with subsets of the experts choose coefficients")
        return trains

    @field_validator("episodes")
    @classmethod
    def _subsets_need_predictions(cls, episodes: int | None, info: ValidationInfo) -> int | None:
        values = info.data
        for key, valid in (
            ("learner", PREDICTING),
            ("vectors", ("learned", "mean")),  # a table has no number for other experts
            ("density", (None,)),  # what is trimmed depends on all experts
        ):
            if episodes and key in values and values[key] not in valid:
                names = " | ".join("null" if choice is None else choice for choice in valid)
                raise ValueError(f"needs {key}={names}, not {values[key]}; null is without")
        return episodes

    @field_validator("learner", "link", "anchor")
    @classmethod
    def _fits_the_granularity(cls, value: str, info: ValidationInfo) -> str:
        granularity = info.data.get("granularity")
        valid = _OF_DIRECTIONS[str(info.field_name)]
        if granularity == "singular_wise" and value not in valid:
            raise ValueError(f"with granularity=singular_wise choose {', '.join(valid)}")
        of_directions = value in ("free_per_layer", "masks")
        if granularity in ("layer_wise", "task_wise") and of_directions:
            raise ValueError(f"only with granularity=singular_wise; with {granularity} choose free")
        return value

    @field_validator("vectors")
    @classmethod
    def _masks_are_of_matrices(
        cls, vectors: VectorCoefficients, info: ValidationInfo
    ) -> VectorCoefficients:
        if info.data.get("learner") == "masks" and vectors != "learned":
            raise ValueError("with learner=masks choose learned")
        return vectors

    @property
    def reads_statistics(self) -> bool:
        """Whether a coefficient depends on the statistics of its expert."""
        return self.learner in ("shared", "per_layer", "linear", "shared_and_free")


class TrainerSettings(Settings):
    """Optimisation of the learner.

    Attributes:
        steps: optimiser steps; the stopping rule.
        images_per_task: images of each task in one step.
        learning_rate: of AdamW, following a cosine to zero.
        weight_decay: of AdamW, on the learner's weights.
        sharpness: ρ of sharpness-aware steps; 0 takes plain ones.
        relative_sharpness: ρ is in units of each parameter's own size, see
            ``SharpnessAwareAdamW``.
        accumulate: ``joint``, one forward over all tasks; ``per_task``, task by task with the
            gradient of the merged weights accumulated, so that only one task's activations
            exist. Same gradient.
        steps_per_epoch: steps between two checkpoints; a divisor of ``steps``.
        devices: processes on this machine that share the images of a step; a divisor of
            ``images_per_task``.
        seed: of the learner's initial weights and the order of the images.
    """

    steps: PositiveInt
    images_per_task: PositiveInt
    learning_rate: NonNegativeFloat
    weight_decay: NonNegativeFloat
    sharpness: NonNegativeFloat = 0.0
    relative_sharpness: bool = False
    accumulate: Accumulate
    steps_per_epoch: PositiveInt
    devices: PositiveInt = 1
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _no_remainders(self) -> Self:
        _check_epochs(self.steps, self.steps_per_epoch)
        if self.images_per_task % self.devices:
            raise ValueError(
                f"images_per_task={self.images_per_task} must be a multiple of "
                f"devices={self.devices}"
            )
        return self


class StudentSettings(TrainingSettings):
    """Distillation of one expert into another architecture; seed: of the order of the images.

    Attributes:
        images: which split's images are used, without labels.
        temperature: of both softmaxes; the divergence is multiplied by its square.
        steps_per_epoch: steps between two checkpoints; a divisor of ``steps``.
    """

    images: DistillationSplit
    temperature: PositiveFloat
    steps_per_epoch: PositiveInt

    @model_validator(mode="after")
    def _no_remainder(self) -> Self:
        _check_epochs(self.steps, self.steps_per_epoch)
        return self


class HeterogeneousExpertSettings(Settings):
    """One task's expert in an architecture of its own.

    Attributes:
        backbone: that architecture.
        file: the expert; ``None`` fine-tunes it here.
    """

    backbone: BackboneSettings
    file: FilePath | None = None


class HeterogeneousSettings(Settings):
    """Experts of other architectures, which are distilled before the merging (paper, 4.2).

    Attributes:
        experts: seen task → its expert.
        labels_from: who labels these tasks' images in the merging step.
        teachers: how those are made that come from no file.
        distillation: of each of them.
    """

    experts: dict[str, HeterogeneousExpertSettings]
    labels_from: LabelsFrom
    teachers: FinetunedZooSettings
    distillation: StudentSettings

    @field_validator("experts", mode="before")
    @classmethod
    def _none_is_empty(cls, experts: object) -> object:
        # In conf/ they are null: Hydra lets a command replace null, but not add keys to {}.
        return {} if experts is None else experts


def _check_epochs(steps: int, steps_per_epoch: int) -> None:
    if steps % steps_per_epoch:
        raise ValueError(f"steps={steps} must be a multiple of steps_per_epoch={steps_per_epoch}")


class StatisticsSettings(Settings):
    """What the learner sees of the weights."""

    of: Source
    features: list[Feature] = Field(min_length=1)
    rank: PositiveInt
    standardise: Standardise


class SpectralSettings(DirectionsSettings):
    """Singular directions, and what the learner sees of them."""

    features: list[DirectionFeature] = Field(default=list(DIRECTION_FEATURES), min_length=1)
    leave_out: list[DirectionFeature] = Field(default_factory=list)

    @field_validator("leave_out")
    @classmethod
    def _something_is_left(
        cls, leave_out: list[DirectionFeature], info: ValidationInfo
    ) -> list[DirectionFeature]:
        features = info.data.get("features", [])
        if unknown := [name for name in leave_out if features and name not in features]:
            raise ValueError(f"{', '.join(unknown)}: not in spectral.features")
        if features and not set(features) - set(leave_out):
            raise ValueError("nothing of spectral.features is left")
        return leave_out

    @property
    def seen_features(self) -> list[DirectionFeature]:
        """``features`` without those that are left out."""
        return [name for name in self.features if name not in self.leave_out]


class LearnerSettings(Settings):
    """How statistics become coefficients."""

    kind: LearnerKind
    hidden: PositiveInt
    scale: PositiveFloat
    start: float | None = None
    vectors: VectorCoefficients = "learned"
    vector_scale: PositiveFloat = 1.0


class MergeSettings(Settings):
    """How coefficients become weights.

    Attributes:
        running_statistics: of batch normalisation; records of earlier versions have none.
    """

    anchor: Anchor
    precision: Precision
    memory_map: bool
    compile: bool
    running_statistics: RunningStatistics = "averaged"


class TuningSettings(Settings):
    """How hyper-parameters are chosen.

    Attributes:
        rule: the value that agrees most with the teachers, or the one that does so most often
            when each task in turn is left out.
        images_per_task: at most this many unlabeled images of each task tell the agreement.
        oracle: score all values of the grids on the test images too, to tell what the rule loses.
    """

    rule: TuningRule = "agreement"
    images_per_task: PositiveInt
    oracle: bool = False


class MergingSettings(Settings):
    """The sections of the config that merging reads; ``app.config.Config`` adds the others."""

    corruption: CorruptionSettings
    backbone: BackboneSettings
    zoo: ZooSettings
    heterogeneous: HeterogeneousSettings
    statistics: StatisticsSettings
    spectral: SpectralSettings = SpectralSettings()
    learner: LearnerSettings
    labels: LabelsSettings
    learning: LearningSettings
    trainer: TrainerSettings
    merge: MergeSettings
    tuning: TuningSettings
    seed: int = Field(ge=0)
    accelerator: Accelerator
