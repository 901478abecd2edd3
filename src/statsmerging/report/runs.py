"""Finished runs on disk, and which of them belong together."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from statsmerging.errors import UserError
from statsmerging.report.reading import ReportedRun, read_run
from statsmerging.report.rows import rows_by_method
from statsmerging.report.settings import (
    flatten,
    methods_of,
    relevant_settings,
    repeating_seeds,
    setting_text,
    told_apart,
)
from statsmerging.runs.directory import CONFIG, MANIFEST, RESULTS
from statsmerging.store.received import ReceivedError, received_yaml

log = logging.getLogger(__name__)

#: Jobs whose run directories hold results when they are complete.
WITH_RESULTS = ("merge", "transfer", "finetune", "distill", "evaluate", "check")

#: Methods that a title names; of more it gives the number.
LISTED = 4


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seed.

    Attributes:
        members: the runs, in the order of seeds.
        settings: dotted key → value, of everything that these runs have in common.
        differences: those of the settings in which groups on the same suite and backbone differ.
    """

    members: Sequence[ReportedRun]
    settings: Mapping[str, Any]
    differences: Mapping[str, Any]

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Contents of ``results.json``, in the order of seeds."""
        return [member.results for member in self.members]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config of the first run."""
        return self.members[0].config

    @property
    def stamps(self) -> list[str]:
        """Of any of the runs, each once."""
        return list(dict.fromkeys(stamp for run in self.runs for stamp in run["stamps"]))

    @property
    def setting(self) -> tuple[str, ...]:
        """``key=value`` of the differences."""
        return tuple(f"{key}={setting_text(value)}" for key, value in self.differences.items())

    @property
    def label(self) -> str:
        """Suite, backbone and differences: names the group among all others."""
        return " · ".join([self.problem, *self.setting])

    @property
    def problem(self) -> str:
        """Suite and backbone."""
        first = self.members[0].results
        return f"{first['suite']} · {first['backbone']}"


@dataclass
class _Gathered:
    """Runs of one setting while they are gathered, and what each of their methods was given."""

    setting: dict[str, Any]
    methods: dict[str, Any] = field(default_factory=dict)
    runs: list[ReportedRun] = field(default_factory=list)

    def takes(self, setting: dict[str, Any], methods: dict[str, Any]) -> bool:
        """Whether a run belongs here: methods that both have were given the same."""
        common = self.methods.keys() & methods.keys()
        return setting == self.setting and all(
            self.methods[name] == methods[name] for name in common
        )


def runs_by_setting(folder: Path) -> list[RunGroup]:
    """All finished runs below a folder, grouped by all but their seed and their choice of methods.

    So methods that draw nothing at random may be run once and the others with several seeds. Groups
    are in the order of their settings' values, numbers by size.

    Raises:
        UserError: no finished run.
    """
    groups: list[_Gathered] = []
    runs = list(finished_runs(folder))
    repeating = repeating_seeds([run.config for run in runs])
    for run in runs:
        setting, methods = relevant_settings(run.config, repeating), methods_of(run.config)
        group = next((group for group in groups if group.takes(setting, methods)), None)
        if group is None:
            group = _Gathered(setting)
            groups.append(group)
        group.methods.update(methods)
        group.runs.append(run)
    if not groups:
        raise UserError(f"job.runs={folder} holds no finished run (manifest.json, results.json)")
    settings = [_shown(group) for group in groups]
    own = told_apart(settings)
    found = [
        RunGroup(sorted(group.runs, key=_order), setting, differences)
        for group, setting, differences in zip(groups, settings, own, strict=True)
    ]
    return sorted(found, key=_place)


def finished_runs(folder: Path) -> Iterator[ReportedRun]:
    """All below a folder, in the order of their names; a damaged one is named and left out."""
    for manifest in sorted(folder.rglob(MANIFEST)):
        if os.path.lexists(manifest.with_name(RESULTS)):
            try:
                yield read_run(manifest.parent)
            except ReceivedError as error:
                log.warning("left out: %s", error)


def unfinished_runs(folder: Path) -> list[str]:
    """Run directories below a folder, named from there, that hold no whole results yet."""
    return [
        str(path.relative_to(folder))
        for path in _run_directories(folder)
        if not all(os.path.lexists(path / name) for name in (MANIFEST, RESULTS))
        and _job(path) in WITH_RESULTS
    ]


def _job(folder: Path) -> str | None:
    """What an unfinished run is for; ``None`` where that cannot be told."""
    try:
        config = received_yaml(folder, CONFIG)
    except ReceivedError as error:
        log.warning("left out: %s", error)
        return None
    job = config.get("job") if isinstance(config, dict) else None
    return job.get("name") if isinstance(job, dict) else None


def overruled_runs(groups: Sequence[RunGroup]) -> list[Path]:
    """Directories that repeat the setting and seed of another run with other accuracies."""
    shown = [(group, rows_by_method(group.runs)) for group in groups]
    return [
        run.path
        for group, rows in shown
        for run in group.members
        if any(
            row["accuracy"] != rows[method][run.results["seed"]]["accuracy"]
            for method, row in run.results["methods"].items()
        )
    ]


def _run_directories(folder: Path) -> Iterator[Path]:
    """Folders with a config, but for those inside of others: loggers write such files too."""
    for config in sorted(folder.rglob(CONFIG)):
        outer = config.parent.relative_to(folder).parents
        if not any((folder / path / CONFIG).exists() for path in outer):
            yield config.parent


def _order(run: ReportedRun) -> tuple[int, int]:
    """Runs of most methods first, then by seed: the first tells the order of rows."""
    return -len(run.results["methods"]), int(run.results["seed"])


def _place(group: RunGroup) -> tuple[Any, ...]:
    """Of a setting among others, which the names of directories do not tell."""
    first = group.members[0].results
    values = (first["suite"], first["backbone"], *group.differences.values())
    return tuple((0, value, "") if _is_number(value) else (1, 0, str(value)) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _shown(group: _Gathered) -> dict[str, Any]:
    """The setting as titles tell it from others."""
    parameters = {f"method.{key}": value for key, value in flatten(group.methods)}
    names = list(group.methods)
    listed = ", ".join(names) if len(names) <= LISTED else f"{len(names)} methods"
    return {**group.setting, **parameters, "method": listed}
