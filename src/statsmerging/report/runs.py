"""Finished runs on disk, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statsmerging.records.errors import UserError
from statsmerging.records.files import read_json
from statsmerging.records.hashing import json_sha256
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


def runs_by_setting(folder: Path) -> list[RunGroup]:
    """All finished runs below a folder, grouped by all but their seed.

    Groups are in the order of their folders' names.

    Raises:
        UserError: no finished run.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("manifest.json")):
        results = path.with_name("results.json")
        if results.exists():
            config = _relevant(read_json(path)["config"])
            key = json_sha256(config)
            configs[key] = config
            groups.setdefault(key, []).append(read_json(results))
    if not groups:
        raise UserError(f"job.runs={folder} holds no finished run (manifest.json, results.json)")
    return [
        RunGroup(
            sorted(runs, key=lambda run: int(run["seed"])),
            tuple(_differences(configs[key], list(configs.values()))),
        )
        for key, runs in groups.items()
    ]


def _relevant(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted key → value, without seeds of the run and what only concerns its presentation."""
    relevant = {key: value for key, value in config.items() if key not in (*PRESENTATION, "seed")}
    # The seed of the run stands again wherever something is drawn at random; those of the experts
    # and of the corrupted images are others.
    flat = {
        key: value
        for key, value in _flatten(relevant)
        if key.startswith(("zoo.", "corruption.")) or key.rpartition(".")[2] != "seed"
    }
    names = list(config.get("method", {}))
    flat["method"] = ", ".join(names) if len(names) <= LISTED else f"{len(names)} methods"
    return flat


def _flatten(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
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
