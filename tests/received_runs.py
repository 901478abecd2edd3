"""Finished runs as somebody could send them: changed, with records that fit the change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from statsmerging.runs.directory import run_hash
from statsmerging.store.files import read_json, write_json
from statsmerging.store.hashing import file_sha256, json_sha256

Change = Callable[[dict[str, Any]], object]


def change_results(run: Path, change: Change) -> None:
    """Change ``results.json``."""
    results = read_json(run / "results.json")
    change(results)
    write_json(run / "results.json", results)
    change_manifest(run, lambda manifest: None)


def change_config(run: Path, change: Change) -> None:
    """Change the config, here and in the manifest."""
    config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    change(config)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    change_manifest(run, lambda manifest: manifest.update(run_hash=run_hash(config)))
    change_manifest(run, lambda manifest: change(manifest["config"]))


def change_manifest(run: Path, change: Change) -> None:
    """Change ``manifest.json``; its hashes are those of itself and of the files of the run."""
    manifest = read_json(run / "manifest.json")
    change(manifest)
    del manifest["sha256"]
    manifest["outputs"] = {name: file_sha256(run / name) for name in manifest["outputs"]}
    write_json(run / "manifest.json", {**manifest, "sha256": json_sha256(manifest)})
