"""Settings of the zoo: which backbone, and how its experts are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from statsmerging.records.settings import Settings

#: Words that may stand in place of a weight file.
HUB, PRETRAIN = "hub", "pretrain"


class BackboneSettings(Settings):
    """Which network, at which resolution, with which weights.

    Attributes:
        label: short name, as it stands in directory names and tables.
        library: where the architecture comes from.
        name: the library's name of the architecture.
        weights: a safetensors file, ``hub`` for the library's own download of ``tag``, or
            ``pretrain`` to pre-train on the suite's generic images.
        tag: the library's name of published weights, used with ``hub``.
        image_size: side of the square input, in pixels.
        mean: per channel, for images scaled to [0, 1].
        std: per channel, for images scaled to [0, 1].
        interpolation: filter of the resize.
        arguments: further arguments of the constructor (width, depth, patch size …).
    """

    label: str
    library: Literal["timm", "open_clip"]
    name: str
    weights: str
    tag: str | None
    image_size: PositiveInt
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    interpolation: Literal["bilinear", "bicubic", "lanczos"]
    arguments: dict[str, Any]

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
        """What determines the network but not its weights."""
        return {"library": self.library, "name": self.name, "arguments": self.arguments}


class TrainingSettings(Settings):
    """Optimisation of one supervised training.

    Attributes:
        steps: optimiser steps.
        batch_size: images per step.
        learning_rate: peak of AdamW's learning rate, reached after ``warmup`` · steps, then
            following a cosine to zero.
        weight_decay: of AdamW.
        warmup: share of the steps in which the learning rate rises.
        seed: of initial weights and image order.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup: float = Field(ge=0, le=1)
    seed: int = Field(ge=0)
