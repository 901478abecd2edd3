"""Settings of the zoo: which backbone, which experts, which heads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    DirectoryPath,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from statsmerging.choices import CropMode, Interpolation, Library
from statsmerging.errors import UserError
from statsmerging.settings import Settings

#: Words that may stand in place of a weight file.
HUB, PRETRAIN, BASE = "hub", "pretrain", "base"


class BackboneSettings(Settings):
    """Which network, at which resolution, with which weights.

    A value of the preprocessing that is ``None`` is the one the library records for the checkpoint.

    Attributes:
        label: short name in directory names and tables.
        library: the library of the architecture.
        name: the library's name of the architecture.
        weights: a safetensors file, ``hub`` for the library's own download of ``tag``, or
            ``pretrain`` to pre-train on the suite's generic images.
        tag: the library's name of published weights, used with ``hub``.
        image_size: side of the square input, in pixels.
        mean: per channel, for images scaled to [0, 1].
        std: per channel, for images scaled to [0, 1].
        interpolation: filter of the resize.
        crop_ratio: side of the input as a share of the resized image's shorter side.
        crop_mode: ``center`` keeps the proportions of the image, ``squash`` makes it a square.
        arguments: further arguments of the constructor (width, depth, patch size …).
    """

    label: str
    library: Library
    name: str
    weights: str
    tag: str | None
    image_size: PositiveInt | None
    mean: tuple[float, float, float] | None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None
    interpolation: Interpolation | None
    # Older runs recorded neither of these two; these values held then.
    crop_ratio: float | None = Field(default=1.0, gt=0, le=1)
    crop_mode: CropMode | None = "center"
    arguments: dict[str, Any]

    @field_validator("arguments", mode="before")
    @classmethod
    def _none_is_empty(cls, arguments: dict[str, Any] | None) -> dict[str, Any]:
        # conf/ has null, which a command can replace; Hydra adds no keys to {}.
        return {} if arguments is None else arguments

    @field_validator("weights")
    @classmethod
    def _is_word_or_file(cls, weights: str) -> str:
        if weights not in (HUB, PRETRAIN) and not Path(weights).is_file():
            raise ValueError(f"no such file; give a .safetensors file, {HUB} or {PRETRAIN}")
        return weights

    @property
    def weights_file(self) -> Path | None:
        """The file of the weights, if they come from one."""
        return None if self.weights in (HUB, PRETRAIN) else Path(self.weights)

    @property
    def architecture(self) -> dict[str, Any]:
        """The values that determine the network, but not its weights."""
        return {"library": self.library, "name": self.name, "arguments": self.arguments}


class TrainingSettings(Settings):
    """Optimisation of one supervised training.

    Attributes:
        steps: optimiser steps.
        batch_size: images per step; more than the limit would only fill the memory.
        learning_rate: peak of AdamW's learning rate, reached after ``warmup`` · steps, then
            following a cosine to zero.
        weight_decay: of AdamW.
        warmup: share of the steps in which the learning rate rises.
        seed: of initial weights and image order.
    """

    steps: PositiveInt
    batch_size: int = Field(gt=0, le=4096)
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup: float = Field(ge=0, le=1)
    seed: int = Field(ge=0)


class FinetunedZooSettings(Settings):
    """Experts that are fine-tuned in the run.

    Attributes:
        root: not used.
        seed: of the experts.
        pretraining: of the backbone, with ``backbone.weights=pretrain``.
        finetuning: of each expert.
        lora_rank: rank of the updates of the blocks' matrices, which alone are trained then;
            ``None`` fine-tunes all weights.
    """

    kind: Literal["finetuned"]
    root: None
    seed: int
    lora_rank: PositiveInt | None
    pretraining: TrainingSettings
    finetuning: TrainingSettings


class LocalZooSettings(Settings):
    """Experts from files named after their tasks."""

    kind: Literal["local"]
    root: DirectoryPath
    seed: None


class FileSizes(Settings):
    """Sizes of the base's file and of each expert's, in GB."""

    base: PositiveFloat
    expert: PositiveFloat


class PublishedZooSettings(Settings):
    """Published CLIP experts and the CLIP they started from.

    Attributes:
        root: folder with the files; ``None`` asks the hub, where the family is there.
        base: repository of the pre-trained CLIP, or its file below ``root``.
        expert: repository or file of an expert; ``{task}`` stands for an entry of ``names``.
        names: task → the family's name of it, for all tasks with an expert.
    """

    root: DirectoryPath | None
    seed: None
    base: str
    expert: str
    names: dict[str, str]

    def expert_of(self, task: str) -> str:
        """Repository or file of one task's expert."""
        return self.expert.format(task=self.name_of(task))

    def name_of(self, task: str) -> str:
        """The family's name of a task.

        Raises:
            UserError: the family has no expert for the task.
        """
        if task not in self.names:
            raise UserError(
                f"zoo.names: this zoo has no expert for {task}; it has {', '.join(self.names)}"
            )
        return self.names[task]


Series = Literal["clip-vit-base-patch32", "clip-vit-base-patch16", "clip-vit-large-patch14"]


class FusionBenchZooSettings(PublishedZooSettings):
    """FusionBench's image towers on the Hugging Face hub.

    Attributes:
        series: the architecture's part of the repositories' names.
        gigabytes: series → sizes of its files.
    """

    kind: Literal["fusion_bench"]
    series: Series
    gigabytes: dict[Series, FileSizes]

    @property
    def sizes(self) -> FileSizes:
        return self.gigabytes[self.series]


class TaskVectorsZooSettings(PublishedZooSettings):
    """Pickled modules of the task_vectors project.

    Attributes:
        head: the file of a task's head, below ``root``.
        gigabytes: sizes of the files.
    """

    kind: Literal["task_vectors"]
    root: DirectoryPath
    head: str
    gigabytes: FileSizes

    @property
    def sizes(self) -> FileSizes:
        return self.gigabytes

    def head_of(self, task: str) -> str:
        """File of one task's head, below ``root``."""
        return self.head.format(task=self.name_of(task))


ZooSettings = Annotated[
    FinetunedZooSettings | LocalZooSettings | FusionBenchZooSettings | TaskVectorsZooSettings,
    Field(discriminator="kind"),
]


class OwnHeadsSettings(Settings):
    """The head that comes with each expert."""

    kind: Literal["own"]


class ProbedHeadsSettings(Settings):
    """Linear probes on the pre-trained features."""

    kind: Literal["probed"]


class FileHeadsSettings(Settings):
    """Heads from files named after their tasks."""

    kind: Literal["files"]
    root: DirectoryPath


class ZeroShotHeadsSettings(Settings):
    """Heads from class names and prompts.

    Attributes:
        text: source of the whole CLIP: ``base``, ``hub`` or a file.
        class_names: task → class names in label order, instead of the data set's own.
        templates: task → prompts with ``{}`` for the class; ``default`` serves the other tasks.
    """

    kind: Literal["zero_shot"]
    text: str
    class_names: dict[str, list[str]]
    templates: dict[str, list[str]]

    @field_validator("text")
    @classmethod
    def _is_word_or_file(cls, text: str) -> str:
        if text not in (BASE, HUB) and not Path(text).is_file():
            raise ValueError(f"no such file; give a file of the whole CLIP, {BASE} or {HUB}")
        return text

    @field_validator("templates")
    @classmethod
    def _have_a_place_for_the_class(cls, templates: dict[str, list[str]]) -> dict[str, list[str]]:
        wrong = [text for texts in templates.values() for text in texts if "{}" not in text]
        if wrong or "default" not in templates:
            raise ValueError(f"every prompt needs {{}} and `default` some prompt; wrong: {wrong}")
        return templates


HeadsSettings = Annotated[
    OwnHeadsSettings | ProbedHeadsSettings | FileHeadsSettings | ZeroShotHeadsSettings,
    Field(discriminator="kind"),
]
