"""What ``fit`` can be told, and the sections of a job's config that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypedDict, get_origin, get_type_hints

from pydantic import ValidationError
from torch import nn

from statsmerging.choices import (
    Accumulate,
    Anchor,
    Granularity,
    LearnerKind,
    Objective,
    VectorCoefficients,
)
from statsmerging.data.settings import LearningSettings
from statsmerging.errors import UserError
from statsmerging.learning.settings import (
    LabelsSettings,
    LearnedMethodSettings,
    SpectralSettings,
    StatisticsSettings,
    TrainerSettings,
)
from statsmerging.merging.directions import DirectionStatistics
from statsmerging.merging.errors import check_choice, choose_one
from statsmerging.merging.statistics import LayerStatistics
from statsmerging.settings import describe

LibraryLearner = Literal[LearnerKind, "masks"]

#: What makes coefficients: a learner's kind, or a function of statistics that gives a module.
#: Called without arguments, the module gives λ.
Learner = LibraryLearner | Callable[[LayerStatistics | DirectionStatistics], nn.Module]


class FitOptions(TypedDict, total=False):
    """What ``fit`` can be told besides the models; the defaults are the command's (``conf/``).

    Attributes:
        granularity: one coefficient per layer and task (``layer_wise``, the default), per task
            (``task_wise``), or per singular direction (``singular_wise``).
        labels: ``hard`` (default), cross-entropy against the teacher's class; ``soft``,
            KL(teacher ‖ student) at the temperature τ, times τ².
        temperature: τ; 1. It has no effect on hard labels.
        objective: ``teacher_labels`` (default), or ``entropy`` of the merged model's predictions.
        anchor: ``pretrained`` (default) for θ₀ + Σ_k λ_k T_k, ``none`` for Σ_k λ_k θ_k.
        vectors: how coefficients of biases and norms are made: ``learned`` (default), ``table``,
            ``mean``, ``only`` or ``trained``, see ``StatsMergeLearner``.
        steps: of the optimiser, 300; the stopping rule.
        learning_rate: of AdamW, 0.01, following a cosine to 0.
        inputs_per_task: inputs of each task in one step, 8; a smaller task repeats its own.
        accumulate: ``joint`` (default), or ``per_task``, which has one task's activations in
            memory at a time. Same gradient.
        held_out: share of each task's inputs that nothing learns from, 0.2: they tell the
            agreement. At least 8 and at most half of them; 0: those that are learned from tell it.
        seed: of the learner's initial weights and the order of the inputs, 0.
        statistics: keys of ``StatisticsSettings``, e.g. ``{"features": ["mean"], "rank": 1}``.
        spectral: keys of ``SpectralSettings``, e.g. ``{"rank": 4}``, for ``singular_wise``.
    """

    granularity: Granularity
    labels: Literal["hard", "soft"]
    temperature: float
    objective: Objective
    anchor: Anchor
    vectors: VectorCoefficients
    steps: int
    learning_rate: float
    inputs_per_task: int
    accumulate: Accumulate
    held_out: float
    seed: int
    statistics: Mapping[str, Any]
    spectral: Mapping[str, Any]


#: A test holds that they are those of ``conf/``.
DEFAULTS: FitOptions = {
    "granularity": "layer_wise",
    "labels": "hard",
    "temperature": 1.0,
    "objective": "teacher_labels",
    "anchor": "pretrained",
    "vectors": "learned",
    "steps": 300,
    "learning_rate": 1e-2,
    "inputs_per_task": 8,
    "accumulate": "joint",
    "held_out": 0.2,
    "seed": 0,
    "statistics": {
        "of": "weights",
        "features": ["mean", "variance", "magnitude", "singular_values"],
        "rank": 3,
        "standardise": "both",
    },
    "spectral": {},
}

#: Width of the learner's hidden layer.
HIDDEN = 64


@dataclass(frozen=True)
class Sections:
    """The options as the settings of a job's sections, which check them."""

    method: LearnedMethodSettings
    labels: LabelsSettings
    trainer: TrainerSettings
    statistics: StatisticsSettings
    spectral: SpectralSettings
    held_out: float

    @classmethod
    def of(cls, learner: Learner, options: FitOptions) -> Self:
        hints = get_type_hints(FitOptions)
        for name, value in options.items():
            if name not in hints:
                raise UserError(f"{name}: no such option; {choose_one(name, hints, 'choose from')}")
            if get_origin(hints[name]) is Literal:
                check_choice(name, value, hints[name])
        if not callable(learner):
            check_choice("learner", learner, LibraryLearner)
        chosen: dict[str, Any] = {**DEFAULTS, **options}
        try:
            return cls._made(learner, chosen)
        except ValidationError as error:
            told = describe(error).replace("images_per_task", "inputs_per_task")
            raise UserError(told) from error

    @classmethod
    def _made(cls, learner: Learner, chosen: dict[str, Any]) -> Self:
        """The sections with these values of all options."""
        steps = chosen["steps"]
        method = {
            "title": "StatsMerging",
            # One of one's own may be of any granularity.
            "learner": "shared" if callable(learner) else learner,
            "link": "identity",
            "scale": 1.0,
            "start": None,
            "density": None,
            "tune": None,
        }
        own = ("granularity", "anchor", "vectors", "objective", "learning_rate")
        statistics = {**DEFAULTS["statistics"], **chosen["statistics"]}
        learning = {
            "split": "validation",
            "held_out": chosen["held_out"],
            "images": None,
            "seed": 0,
        }
        return cls(
            LearnedMethodSettings.model_validate(method | {name: chosen[name] for name in own}),
            LabelsSettings(kind=chosen["labels"], temperature=chosen["temperature"]),
            TrainerSettings(
                steps=steps,
                images_per_task=chosen["inputs_per_task"],
                learning_rate=chosen["learning_rate"],
                weight_decay=0.0,
                accumulate=chosen["accumulate"],
                # Without checkpoints there is one epoch.
                steps_per_epoch=steps if isinstance(steps, int) and steps > 0 else 1,
                seed=chosen["seed"],
            ),
            StatisticsSettings.model_validate(statistics),
            SpectralSettings.model_validate(chosen["spectral"]),
            LearningSettings.model_validate(learning).held_out,
        )
