"""Finished runs on disk, and which of them belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from statsmerging.records.errors import UserError
from statsmerging.records.files import read_json
from statsmerging.records.hashing import json_sha256
from statsmerging.records.run_directory import PRESENTATION


def runs_by_setting(folder: Path) -> list[list[dict[str, Any]]]:
    """``results.json`` of all finished runs below a folder, grouped by all but their seed.

    Groups are in the order of their folders' names, runs within a group in the order of seeds.

    Raises:
        UserError: no finished run.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.rglob("manifest.json")):
        results = path.with_name("results.json")
        if results.exists():
            setting = _setting(read_json(path)["config"])
            groups.setdefault(setting, []).append(read_json(results))
    if not groups:
        raise UserError(f"job.runs={folder} holds no finished run (manifest.json, results.json)")
    return [sorted(group, key=lambda run: int(run["seed"])) for group in groups.values()]


def _setting(config: dict[str, Any]) -> str:
    """Hash of a config without its seed and without what only concerns its presentation."""
    relevant = {key: value for key, value in config.items() if key not in (*PRESENTATION, "seed")}
    relevant["trainer"] = {key: v for key, v in config["trainer"].items() if key != "seed"}
    return json_sha256(relevant)
