"""A finished run as it was received: its records are checked before anything uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statsmerging.records.errors import printable
from statsmerging.records.hashing import file_sha256
from statsmerging.records.received import (
    ReceivedError,
    received_file,
    received_json,
    received_yaml,
)
from statsmerging.records.run_directory import CONFIG, MANIFEST, RESULTS, run_hash


@dataclass(frozen=True)
class FinishedRun:
    """One run directory that holds its manifest and its results.

    Attributes:
        path: the directory.
        config: content of ``config.yaml``, the resolved config.
        manifest: content of ``manifest.json``.
        results: content of ``results.json``.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: dict[str, Any]

    def file(self, name: str) -> Path | None:
        """A file of the run as the run wrote it; ``None`` where it wrote none of that name.

        Raises:
            ReceivedError: the file is gone, damaged, a link or no regular file.
        """
        return _verified(self.path, name, self.manifest)

    def files_below(self, name: str) -> list[str]:
        """Names of the run's files in a folder of it, e.g. ``learning_curves``, in their order."""
        outputs = self.manifest.get("outputs")
        if outputs is None:  # of a version that recorded none
            files = (self.path / name).rglob("*")
            found = [str(file.relative_to(self.path)) for file in files if file.is_file()]
        else:
            found = [output for output in outputs if Path(name) in Path(output).parents]
        return sorted(found)


def read_finished_run(folder: Path) -> FinishedRun:
    """Read a run directory: config, manifest and results, each as the run wrote it.

    A manifest of a version that recorded no hashes of its own run's files is taken as it is.

    Raises:
        ReceivedError: names the file that is missing, damaged or of another kind.
    """
    manifest = _mapping(folder, MANIFEST, received_json(folder, MANIFEST))
    for key in ("run_hash", "config"):
        if key not in manifest:
            raise ReceivedError(f"{_shown(folder / MANIFEST)} has no {key}: it is no manifest")
    _mapping(folder, f"{MANIFEST}: config", manifest["config"])
    outputs = manifest.get("outputs")
    if outputs is not None:
        _mapping(folder, f"{MANIFEST}: outputs", outputs)
    config = _mapping(folder, CONFIG, received_yaml(folder, CONFIG))
    if run_hash(config) != manifest["run_hash"]:
        raise ReceivedError(
            f"{_shown(folder / CONFIG)} was changed since: its hash is {run_hash(config)}, the "
            f"manifest says {manifest['run_hash']}"
        )
    for name in (CONFIG, RESULTS):
        _verified(folder, name, manifest)
    results = _mapping(folder, RESULTS, received_json(folder, RESULTS))
    _mapping(folder, f"{RESULTS}: methods", results.get("methods"))
    return FinishedRun(folder, config, manifest, results)


def _verified(folder: Path, name: str, manifest: Mapping[str, Any]) -> Path | None:
    outputs = manifest.get("outputs")
    if name not in outputs if outputs is not None else not (folder / name).exists():
        return None
    path = received_file(folder, name)
    try:
        whole = outputs is None or file_sha256(path) == outputs[name]
    except OSError as error:
        raise ReceivedError(f"{_shown(path)} cannot be read: {error.strerror}") from error
    if not whole:
        raise ReceivedError(f"{_shown(path)} is not what the run wrote: its sha256 is another")
    return path


def _mapping(folder: Path, name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ReceivedError(f"{_shown(folder / name)} is no mapping of names to values")
    return value


def _shown(path: Path) -> str:
    return printable(str(path))
