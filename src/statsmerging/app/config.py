"""The whole config, typed and range-checked; conf/ documents every key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import Container, OmegaConf
from pydantic import (
    DirectoryPath,
    Field,
    FilePath,
    PositiveInt,
    ValidationError,
    field_validator,
)

from statsmerging.app.loggers.settings import LoggerSettings
from statsmerging.choices import (
    ComparedTasks,
    Granularity,
    Job,
    Link,
    Objective,
    PluginMethods,
)
from statsmerging.data.settings import (
    PlainName,
    SuiteSettings,
)
from statsmerging.errors import UserError
from statsmerging.learning.settings import MergingSettings
from statsmerging.runs.bundles import LONGEST_BY, SUFFIX
from statsmerging.settings import Settings, describe
from statsmerging.zoo.settings import HeadsSettings


class JobSettings(Settings):
    """What to do; further keys belong to single jobs."""

    name: Job
    checkpoint: FilePath | None = None
    runs: Path | None = None
    index: Path = Path("outputs")
    against: PlainName | None = None
    pairs: list[tuple[PlainName, PlainName]] = Field(default_factory=list)
    across: str | None = None
    tasks: ComparedTasks = "seen"
    run: DirectoryPath | None = None
    source: Path | None = None
    base: FilePath | None = None
    target: Path | None = None
    by: str | None = Field(default=None, min_length=1, max_length=LONGEST_BY)
    tolerance: float = Field(default=0.0, ge=0)
    folder: PlainName | None = None
    unused_days: float | None = Field(default=None, ge=0)
    delete: Literal[False, True, "confirmed"] = False
    # Not recorded: only the user of a command can allow the network.
    network: bool = Field(default=False, exclude=True)

    @field_validator("runs")
    @classmethod
    def _is_folder_or_bundle(cls, runs: Path | None) -> Path | None:
        if runs is not None and not (runs.is_dir() or (runs.is_file() and runs.suffix == SUFFIX)):
            raise ValueError(f"no such folder; give one, or a bundle (NAME{SUFFIX})")
        return runs

    @field_validator("pairs", mode="before")
    @classmethod
    def _are_pairs(cls, value: Any) -> Any:
        entries = value if isinstance(value, list) else [None]
        if not all(isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries):
            raise ValueError("give pairs of methods, e.g. [[ties,free],[free,tsv_m]]")
        return value


class Questions(Settings):
    """The keys with which a command asks for its runs and starts none; old records lack them."""

    status: bool = False
    delete_incomplete: Literal[False, True, "confirmed"] = False


class Config(MergingSettings, Questions):
    """The resolved config of one run."""

    job: JobSettings
    suite: SuiteSettings
    heads: HeadsSettings
    logger: LoggerSettings
    granularity: Granularity
    link: Link
    objective: Objective
    method: dict[PlainName, dict[str, Any]] = Field(default_factory=dict)
    joint: bool
    plugins: list[FilePath]
    plugin_methods: PluginMethods = "named"
    cache: str
    threads: PositiveInt | None
    rerun: bool

    @property
    def stamps(self) -> list[str]:
        """Departures from the label-free protocol with frozen heads, a short sentence each.

        Every record and table of the run shows them.
        """
        as_released = [e for e in self.method.values() if e.get("learner") == "released_code"]
        released = bool(as_released)
        others = [e for e in self.method.values() if e.get("learner") != "released_code"]
        departures = {
            "learned from test images": self.learning.split == "test",
            "learned from ground-truth labels": self.labels.kind == "ground_truth" or released,
            "trained the classification heads": any(map(_trains_heads, as_released)),
            "chose the epoch by test accuracy": released,
        }
        stamps = [f"not label-free: {name}" for name, departs in departures.items() if departs]
        if any(map(_trains_heads, others)):
            stamps.append("heads not frozen: trained the classification heads")
        return stamps

    @property
    def input_paths(self) -> list[Path]:
        """Files and folders the run reads."""
        paths = [self.job.checkpoint, self.suite.root, self.zoo.root, self.backbone.weights_file]
        for expert in self.heterogeneous.experts.values():
            paths += [expert.file, expert.backbone.weights_file]
        return [path for path in [*paths, *self.plugins] if path is not None]


def _trains_heads(method: Mapping[str, Any]) -> bool:
    """Whether a method trains heads too, which are frozen for all others."""
    return str(method.get("trains", "coefficients")) != "coefficients"


def plain_values(config: Container, *, complete: bool = True) -> dict[str, Any]:
    """The composed config as plain values, with ``~/`` replaced: no shell does behind ``KEY=``.

    Args:
        complete: whether a key without a value is an error of OmegaConf's.
    """

    def at_home(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: at_home(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [at_home(entry) for entry in value]
        return str(Path(value).expanduser()) if str(value).startswith("~/") else value

    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=complete)
    return cast("dict[str, Any]", at_home(values))


def parse_config(values: dict[str, Any]) -> Config:
    """Check the composed config.

    Raises:
        UserError: names every wrong key, its value and what it should be.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe(error)) from error


def check_tasks(config: Config) -> None:
    """Check the names of the tasks, before anything that takes longer.

    Raises:
        UserError: names what is wrong, and the valid choices.
    """
    suite = config.suite
    if suite.kind == "embedded":
        from statsmerging.data.suites import embedded_suite

        embedded_suite(suite.tasks, suite.unseen)
    elif suite.kind == "folder" and suite.root is not None:
        from statsmerging.data.folder_suite import chosen_folders

        chosen_folders(suite.root, suite.tasks, suite.unseen)
    elif suite.kind == "hub":
        from statsmerging.data.suites import choose_tasks

        choose_tasks(suite.catalogue, suite.tasks, suite.unseen, where="the catalogue")
