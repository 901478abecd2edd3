"""The whole config, typed and range-checked; conf/ documents every key.

This module imports neither torch nor Lightning, so that a mistake is answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    DirectoryPath,
    Field,
    FilePath,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from statsmerging.data.catalogue import CatalogueEntry
from statsmerging.data.corruptions.settings import CorruptionSettings
from statsmerging.distillation.settings import (
    HeterogeneousSettings,
    LabelSettings,
    LearningSettings,
    Objective,
)
from statsmerging.jobs.loggers.settings import LoggerSettings
from statsmerging.records.errors import UserError, printable
from statsmerging.records.received import is_plain_name
from statsmerging.records.settings import Settings
from statsmerging.zoo.settings import BackboneSettings, HeadSettings, ZooSettings


def _plain(name: str) -> str:
    """Names of methods and of a catalogue's tasks become parts of the names of files."""
    if not is_plain_name(name):
        raise ValueError("no plain name: letters, digits and _ . + -, the first a letter or digit")
    return name


def _of_one_folder(name: str) -> str:
    """Names of tasks are those of folders, and become parts of the names of files."""
    if name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise ValueError("no name of a folder or file")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
TaskName = Annotated[str, AfterValidator(_of_one_folder)]


class JobSettings(Settings):
    """What to do; further keys belong to single jobs."""

    name: Literal[
        "merge",
        "finetune",
        "distill",
        "evaluate",
        "check",
        "report",
        "convert",
        "export",
        "reproduce",
        "corruptions",
        "transfer",
    ]
    checkpoint: FilePath | None = None
    runs: DirectoryPath | None = None
    run: DirectoryPath | None = None
    source: Path | None = None
    base: FilePath | None = None
    target: Path | None = None
    tolerance: float = Field(default=0.0, ge=0)
    # In no record: it is the word of whoever reproduces a run.
    network: bool = Field(default=False, exclude=True)


class SuiteSettings(Settings):
    """Which tasks, and where their images are."""

    name: str
    kind: Literal["embedded", "folder", "hub"]
    root: DirectoryPath | None
    tasks: list[TaskName] | None
    unseen: list[TaskName]
    splits: dict[str, list[TaskName]]
    split: str | None
    first: int | None = Field(ge=2)
    image: str | None = None
    label: str | None = None
    catalogue: dict[PlainName, CatalogueEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _split_is_known(self) -> Self:
        if self.split is not None and self.split not in self.splits:
            known = ", ".join(self.splits) or "none (suite.splits is empty)"
            raise ValueError(f"split={self.split}: choose one of {known}")
        return self


class LearningDataSettings(Settings):
    """Which images the learner learns from."""

    split: Literal["validation", "test"]
    images: PositiveInt | None
    seed: int = Field(ge=0)


class StatisticsSettings(Settings):
    """What the learner sees of the weights."""

    of: Literal["weights", "task_vectors"]
    features: list[
        Literal[
            "mean",
            "variance",
            "magnitude",
            "singular_values",
            "cosine",
            "relative_norm",
            "sign_agreement",
            "depth",
            "kind",
        ]
    ] = Field(min_length=1)
    rank: PositiveInt
    standardise: Literal["global", "per_layer", "both"]


class LearnerSettings(Settings):
    """How statistics become coefficients."""

    kind: Literal["shared", "per_layer", "free", "constant_input"]
    hidden: PositiveInt
    scale: PositiveFloat
    start: float | None = None


class MergeSettings(Settings):
    """How coefficients become weights."""

    anchor: Literal["pretrained", "none"]
    precision: Literal["float32", "bfloat16"]
    memory_map: bool
    compile: bool


class TuningSettings(Settings):
    """How hyper-parameters are chosen."""

    images_per_task: PositiveInt


class Config(Settings):
    """The resolved config of one run."""

    job: JobSettings
    suite: SuiteSettings
    corruption: CorruptionSettings
    backbone: BackboneSettings
    zoo: ZooSettings
    heads: HeadSettings
    heterogeneous: HeterogeneousSettings
    statistics: StatisticsSettings
    learner: LearnerSettings
    labels: LabelSettings
    learning: LearningDataSettings
    trainer: LearningSettings
    logger: LoggerSettings
    granularity: Literal["layer_wise", "task_wise"]
    coefficients: Literal["identity", "softmax", "sigmoid", "clamp"]
    objective: Objective
    merge: MergeSettings
    method: dict[PlainName, dict[str, Any]] = Field(default_factory=dict)
    joint: bool
    plugins: list[FilePath]
    tuning: TuningSettings
    seed: int = Field(ge=0)
    cache: str
    accelerator: Literal["auto", "cpu", "gpu"]
    threads: PositiveInt | None
    rerun: bool

    @property
    def input_paths(self) -> list[Path]:
        """Files and folders the run reads."""
        paths = [self.job.checkpoint, self.suite.root, self.zoo.root, self.backbone.weights_file]
        for expert in self.heterogeneous.experts.values():
            paths += [expert.file, expert.backbone.weights_file]
        return [path for path in [*paths, *self.plugins] if path is not None]


#: Where pydantic says that not a value but its key is wrong.
_OF_KEY = "[key]"


def parse_config(values: dict[str, Any]) -> Config:
    """Check the composed config.

    Raises:
        UserError: names every wrong key, its value and what it should be.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe(error)) from error


def describe(error: ValidationError, prefix: str = "") -> str:
    """One line that names every wrong key, its value and what it should be.

    A value of the whole run, e.g. ``seed``, is said once, not again where it is only passed on.
    """
    items = error.errors()
    whole = {(item["loc"][-1], item["msg"]) for item in items if len(item["loc"]) == 1}
    return printable(
        "; ".join(
            f"{prefix}{_key(item['loc'])}{_value(item)}: {_reason(item['msg'])}"
            for item in items
            if len(item["loc"]) == 1 or (item["loc"][-1], item["msg"]) not in whole
        )
    )


def _key(location: tuple[int | str, ...]) -> str:
    """The dotted key; pydantic puts the choice of the groups zoo and heads in its middle."""
    parts = [str(part) for part in location if part != _OF_KEY]
    if parts[0] in ("zoo", "heads"):
        del parts[1:2]
    return ".".join(parts)


def _value(item: ErrorDetails) -> str:
    """``=value``, unless it is a whole section, or the key itself is wrong."""
    value = item["input"]
    return "" if isinstance(value, dict) or item["loc"][-1] == _OF_KEY else f"={value}"


def _reason(message: str) -> str:
    """pydantic's message as the end of a sentence."""
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
