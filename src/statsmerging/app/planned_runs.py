"""The runs of a command before it starts any: their overrides, and the directories they would use.

They are composed as Hydra composes them, so that they are the runs that the same command makes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from statsmerging.app.config import Questions, parse_config, plain_values
from statsmerging.app.mistakes import explain
from statsmerging.errors import UserError
from statsmerging.progress import track
from statsmerging.runs.directory import WITH_RESULTS, RunDirectory

#: Keys with which a command asks for its runs; no run has them.
QUESTIONS = tuple(Questions.model_fields)


@dataclass(frozen=True)
class PlannedRun:
    """One run that a command would make.

    Attributes:
        number: of the job within its sweep, from 0.
        overrides: ``key=value`` of this job.
        mistake: why its config would be refused; empty if it would not.
    """

    number: int
    overrides: tuple[str, ...]
    directory: RunDirectory
    mistake: str = ""


def sweeps_of(config: DictConfig) -> list[DictConfig]:
    """The configs of the sweeps in a command: it is one, or one for each of ``experiment=A,B``."""
    values = experiments_with_sweeps(config)
    if not values:
        return [config]
    others = [
        str(override.input_line)
        for override in _given(config)
        if override.key_or_group != "experiment"
    ]
    hydras = list(config.hydra.overrides.hydra)
    return [
        GlobalHydra.instance()
        .config_loader()
        .load_configuration(
            config.hydra.job.config_name,
            [*hydras, *others, f"experiment={value}"],
            RunMode.MULTIRUN,
        )
        for value in values
    ]


def experiments_with_sweeps(config: DictConfig) -> dict[str, bool]:
    """Each value of ``experiment=A,B``, and whether it is a sweep itself; empty if none of them is.

    Hydra reads an experiment's sweep from the config of the whole command. With
    ``experiment=A,B`` it would read none of them, and run each experiment once.
    """
    loader = GlobalHydra.instance().config_loader()
    for override in _given(config):
        if override.key_or_group == "experiment" and override.is_sweep_override():
            values = {
                value: bool(
                    loader.load_configuration(
                        config.hydra.job.config_name, [f"experiment={value}"], RunMode.RUN
                    ).hydra.sweeper.params
                )
                for value in override.sweep_string_iterator()
            }
            return values if any(values.values()) else {}
    return {}


def planned_jobs(config: DictConfig) -> list[list[str]] | None:
    """Overrides of every job; ``None`` for a sweeper that decides while it runs."""
    sweeper = config.hydra.sweeper
    if not is_hydras_own(sweeper):
        return None
    swept = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    overrides = [
        *OverridesParser.create().parse_overrides(swept),
        *_given(config),
    ]
    return [list(job) for job in BasicSweeper.split_arguments(overrides, None)[0]]


def is_hydras_own(sweeper: DictConfig) -> bool:
    """Whether a sweeper is Hydra's, which tries every combination."""
    return str(sweeper._target_).endswith("BasicSweeper")


def runs_of_sweep(config: DictConfig) -> list[PlannedRun] | None:
    """All runs of a sweep; ``None`` for a sweeper that decides while it runs.

    Raises:
        UserError: a job that keeps no results, and so has no state.
        HydraException: what is swept over cannot be composed.
    """
    jobs = planned_jobs(config)
    if jobs is None:
        return None
    runs = []
    composed = track(
        enumerate(_composed(config, jobs)), "composing the runs", total=len(jobs), announced=False
    )
    for number, job in composed:
        with open_dict(job):
            job.hydra.job.num = number
        HydraConfig.instance().set_config(job)
        path = os.path.join(str(job.hydra.sweep.dir), str(job.hydra.sweep.subdir))  # noqa: PTH118
        runs.append(_planned(number, jobs[number], path, job))
    return runs


def single_run(config: DictConfig) -> PlannedRun:
    """The run of a command that is no sweep.

    Raises:
        UserError: a job that keeps no results, and so has no state.
    """
    HydraConfig.instance().set_config(config)
    overrides = [str(override.input_line) for override in _given(config)]
    return _planned(0, overrides, str(config.hydra.run.dir), config)


def keys_of_sweep(config: DictConfig) -> tuple[set[str], set[str]]:
    """The keys that a sweep sets in each of its jobs, and the overrides that all jobs share."""
    given = _given(config)
    swept = {str(key) for key in config.hydra.sweeper.get("params") or {}}
    fixed = {str(override.input_line) for override in given if not override.is_sweep_override()}
    return swept | {override.key_or_group for override in given}, fixed


def _planned(number: int, overrides: Sequence[str], path: str, job: DictConfig) -> PlannedRun:
    config = OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])
    mistake = ""
    try:
        values = plain_values(config)
        parse_config(values)
    except OmegaConfBaseException as error:  # a key without a value
        values, mistake = plain_values(config, complete=False), explain(error)
    except UserError as error:
        mistake = str(error)
    if values["job"]["name"] not in WITH_RESULTS:
        raise UserError(
            f"job={values['job']['name']} keeps no results, so its runs have no state; these jobs "
            f"do: {', '.join(WITH_RESULTS)}"
        )
    place = Path(os.path.abspath(path))  # noqa: PTH100, as Hydra names it
    return PlannedRun(number, tuple(overrides), RunDirectory(place, values), mistake)


def _composed(config: DictConfig, jobs: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
    """The config of each job, as Hydra's launchers compose it.

    Composing costs a fifth of a second, almost all of it for the groups; jobs that differ in
    values alone share that.
    """
    loader = GlobalHydra.instance().config_loader()
    is_group = cache(lambda name: bool(loader.get_group_options(name)))
    composed: dict[tuple[str, ...], DictConfig] = {}
    named_by_overrides = "override" in str(OmegaConf.to_container(config.hydra.sweep))
    for overrides in jobs:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [
            override
            for override in parsed
            if _sets_a_value(override) and not is_group(override.key_or_group)
        ]
        if named_by_overrides:
            values = []
        rest = tuple(str(override.input_line) for override in parsed if override not in values)
        if rest not in composed:
            composed[rest] = loader.load_sweep_config(config, list(rest))
        job = copy.deepcopy(composed[rest])
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
        yield job


def _sets_a_value(override: Override) -> bool:
    """Whether an override is ``key=value``, with nothing added, removed or placed elsewhere."""
    changes = override.is_delete() or override.is_add() or override.is_force_add()
    return not changes and override.package is None


def _given(config: DictConfig) -> list[Override]:
    """The overrides of the command, without those of Hydra's own keys and without its question."""
    parsed = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    return [override for override in parsed if override.key_or_group not in QUESTIONS]
