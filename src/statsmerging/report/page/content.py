"""What the page shows, as plain values for JSON: from the records in run directories alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from statsmerging.report.bundles import sender
from statsmerging.report.groups import QUESTION, SENDER, RunGroup, flatten, problem_of
from statsmerging.report.runs import ReportedRun, run_name
from statsmerging.report.tables.accuracy import group_content
from statsmerging.report.tables.by_setting import sweep_tables
from statsmerging.report.tables.content import Row, Table
from statsmerging.report.tables.cost import cost_tables
from statsmerging.report.tables.movement import movement_tables
from statsmerging.report.words import setting_words, title_words
from statsmerging.runs.manifest import this_command, typed_command
from statsmerging.runs.results import BOUNDS, MethodRow, method_title

#: What a command has that starts many runs.
_SWEEP_FLAGS = {"-m", "--multirun"}

Content = dict[str, Any]


def page_content(
    groups: Sequence[RunGroup], folder: Path, pages: Mapping[str, str] | None = None
) -> Content:
    """All runs, named from their folder, their settings and their tables.

    Args:
        pages: name of a run → address of the page on it alone.
    """
    runs = [run for group in groups for run in group.members]
    keys = _differing_keys(groups, runs)
    return {
        "keys": keys,
        "runs": [_run(run, group, folder, keys) for group in groups for run in group.members],
        "pages": pages or {},
        "movements": [_table(table) for table in movement_tables(groups)],
        "costs": [_table(table) for table in cost_tables(groups)],
        "sweeps": [_table(table) for table in sweep_tables(groups)],
        "settings": [_setting(group, folder) for group in groups],
    }


def _differing_keys(groups: Sequence[RunGroup], runs: Sequence[ReportedRun]) -> list[str]:
    """Keys in which runs differ: the question that they answer, settings, seeds of the experts."""
    flat = [dict(flatten(run.config)) for run in runs]
    asked = [key for key in QUESTION if len({config.get(key) for config in flat}) > 1]
    asked += [SENDER] if len(set(map(sender, runs))) > 1 else []
    differences = (key for group in groups for key in group.differences)
    found = dict.fromkeys([*asked, *differences, *groups[0].expert_seeds])
    # The rows name the methods.
    return [key for key in found if key != "method"]


def _run(run: ReportedRun, group: RunGroup, folder: Path, keys: Iterable[str]) -> Content:
    results = run.results
    manifest = run.manifest
    config = dict(flatten(run.config))
    known = {**config, SENDER: sender(run)}
    setting = {key: known[key] for key in keys if key in known}
    problem = config
    if SENDER in group.settings:  # others have the same config with other images or experts
        problem = {**config, SENDER: group.settings[SENDER]}
    stamps, warnings = results.stamps, results.warnings
    command = manifest.get("command", [])
    return {
        "name": run_name(run, folder),
        "path": str(run.path),
        "hash": results.run_hash,
        "suite": results.suite,
        "backbone": results.backbone,
        "zoo": group.zoo_of(run),
        "seed": results.seed,
        "setting": setting,
        "stamps": stamps,
        "warnings": warnings,
        "distilled": {task: expert.model_dump() for task, expert in results.distilled.items()},
        "methods": [
            _method(name, row, problem_of(problem, stamps), warnings)
            for name, row in results.methods.items()
        ],
        "config": run.config,
        "config_text": OmegaConf.to_yaml(run.config),
        "command": typed_command(command) if command else "",
        "of_sweep": not _SWEEP_FLAGS.isdisjoint(command),
        "from": "" if run.bundle is None else run.bundle.about,
        # What the config of a bundled run names is elsewhere.
        "reproduce": "" if run.bundle else _reproduce(run),
        "code": manifest.get("code", {}),
        "hardware": manifest.get("hardware", {}),
        "packages": manifest.get("packages", {}),
        "fingerprints": {
            f"{kind}: {name}": sha256
            for kind in ("weights", "data")
            for name, sha256 in manifest.get(kind, {}).items()
        },
    }


def _reproduce(run: ReportedRun) -> str:
    return f"{this_command()} {shlex.join(['job=reproduce', f'job.run={run.path}'])}"


def _method(name: str, row: MethodRow, problem: Sequence[str], warnings: Iterable[str]) -> Content:
    return {
        "name": name,
        "title": method_title(name, row.title),
        "bound": name in BOUNDS,
        # The best number is the best among rows with equal peers.
        "peers": json.dumps([*problem, *row.accuracy, row.is_static]),
        "warnings": [line for line in warnings if line.startswith((f"{name} ", f"{name}:"))],
        "parameters": row.parameters,
        "accuracy": row.accuracy,
        "average": row.average,
        "normalised": row.normalised_average,
        "agreement": row.teacher_agreement,
        "unseen": row.unseen.accuracy,
        "unseen_average": row.unseen.average,
    }


def _setting(group: RunGroup, folder: Path) -> Content:
    """One setting with its table, as ``report.md`` has it."""
    return {
        **_table(group_content(group)),
        "heading": setting_words(group.differences) or group.problem.replace(" · ", " on "),
        "runs": [run_name(run, folder) for run in group.members],
    }


def _table(table: Table) -> Content:
    return {
        "title": title_words(table.title),
        "caption": table.caption,
        "labels": table.label_headings,
        "columns": table.headings,
        "sections": [
            {"heading": section.heading, "rows": [_row(row) for row in section.rows]}
            for section in table.sections
        ],
    }


def _row(row: Row) -> Content:
    bound = "bound" if row.facts.get("method") in BOUNDS else None
    return {
        "labels": row.labels,
        "kind": "published" if row.facts.get("source") == "published" else bound,
        "numbers": [
            None
            if number is None
            else {"mean": number.mean, "text": number.text, "place": number.place}
            for number in row.numbers
        ],
    }
