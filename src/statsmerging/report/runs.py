"""Finished runs on disk, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from statsmerging.records.errors import UserError
from statsmerging.records.files import read_json
from statsmerging.records.run_directory import PRESENTATION

#: Runs that differ in one of these answer different questions; other keys tell settings apart.
_QUESTION = ("job.name", "suite.name", "backbone.label")

#: Methods that a title names; of more it gives the number.
LISTED = 4


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seed.

    Attributes:
        runs: contents of ``results.json``, in the order of seeds.
        setting: ``key=value`` of the keys in which groups on the same suite and backbone differ.
    """

    runs: Sequence[dict[str, Any]]
    setting: tuple[str, ...] = ()


@dataclass
class _Gathered:
    """Runs of one setting while they are gathered, and what each of their methods was given."""

    setting: dict[str, Any]
    methods: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)

    def takes(self, setting: dict[str, Any], methods: dict[str, Any]) -> bool:
        """Whether a run belongs here: methods that both have were given the same."""
        common = self.methods.keys() & methods.keys()
        return setting == self.setting and all(
            self.methods[name] == methods[name] for name in common
        )


def runs_by_setting(folder: Path) -> list[RunGroup]:
    """All finished runs below a folder, grouped by all but their seed and their choice of methods.

    So methods that draw nothing at random may be run once and the others with several seeds. Groups
    are in the order of their folders' names.

    Raises:
        UserError: no finished run.
    """
    groups: list[_Gathered] = []
    for path in sorted(folder.rglob("manifest.json")):
        results = path.with_name("results.json")
        if results.exists():
            config = read_json(path)["config"]
            setting, methods = _relevant(config), _methods(config)
            group = next((group for group in groups if group.takes(setting, methods)), None)
            if group is None:
                group = _Gathered(setting)
                groups.append(group)
            group.methods.update(methods)
            group.runs.append(read_json(results))
    if not groups:
        raise UserError(f"job.runs={folder} holds no finished run (manifest.json, results.json)")
    settings = [_shown(group) for group in groups]
    return [
        RunGroup(
            sorted(group.runs, key=lambda run: (-len(run["methods"]), int(run["seed"]))),
            tuple(_differences(setting, settings)),
        )
        for group, setting in zip(groups, settings, strict=True)
    ]


def _relevant(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted key → value, without methods, seeds of the run and what concerns its presentation."""
    dropped = (*PRESENTATION, "seed", "method")
    relevant = {key: value for key, value in config.items() if key not in dropped}
    # The seed of the run stands again wherever something is drawn at random; those of the experts
    # and of the corruption are others.
    return {
        key: value
        for key, value in flatten(relevant)
        if key.startswith(("zoo.", "corruption.")) or key.rpartition(".")[2] != "seed"
    }


def _methods(config: dict[str, Any]) -> dict[str, Any]:
    """Method → its parameters, without its seed, which is that of the run."""
    return {
        name: {key: value for key, value in entry.items() if key != "seed"}
        for name, entry in config.get("method", {}).items()
    }


def _shown(group: _Gathered) -> dict[str, Any]:
    """The setting as titles tell it from others."""
    parameters = {f"method.{key}": value for key, value in flatten(group.methods)}
    names = list(group.methods)
    listed = ", ".join(names) if len(names) <= LISTED else f"{len(names)} methods"
    return {**group.setting, **parameters, "method": listed}


def flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every entry."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differences(config: dict[str, Any], others: Sequence[dict[str, Any]]) -> Iterator[str]:
    peers = [
        other for other in others if all(other.get(key) == config.get(key) for key in _QUESTION)
    ]
    for key, value in config.items():
        # A key that only one of them has belongs to a method that only one of them ran.
        if any(key in peer and peer[key] != value for peer in peers):
            yield f"{key}={value}"
