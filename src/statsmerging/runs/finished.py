"""A finished run as it was received; its records are checked before anything uses them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from statsmerging.errors import printable, shown
from statsmerging.runs.directory import CONFIG, MANIFEST, RESULTS, run_hash
from statsmerging.runs.results import RunResults, read_results
from statsmerging.store.hashing import file_sha256, json_sha256
from statsmerging.store.received import (
    ReceivedError,
    check_record,
    received_file,
    received_json,
    received_yaml,
)
from statsmerging.store.secrets import redacted

#: Keys of the config that had other names in earlier versions: old name → new name, both dotted.
RENAMED_KEYS = {
    "coefficients": "link",
    "zoo.name": "zoo.kind",
    "heterogeneous.teachers.name": "heterogeneous.teachers.kind",
}

#: Keys of the config that earlier versions did not have, with the value that held then: section,
#: its kind (``None``: every run has the section), key, value.
LATER_KEYS = (
    ("merge", None, "running_statistics", "averaged"),
    ("zoo", "finetuned", "lora_rank", None),
    ("heterogeneous.teachers", "finetuned", "lora_rank", None),
)


#: Learning curves of a method. Every start of the run, the first one and each resumption, has
#: written a version of its own.
CURVE_FILE = re.compile(r"learning_curves/([^/]+)/version_(\d{1,9})/metrics\.csv")


@dataclass(frozen=True)
class FinishedRun:
    """One run directory that holds its manifest and its results.

    Attributes:
        path: the directory.
        config: content of ``config.yaml``, the resolved config, in today's keys.
        manifest: content of ``manifest.json``.
        results: typed content of ``results.json``.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: RunResults

    def file(self, name: str) -> Path | None:
        """A file of the run, verified by its hash; ``None`` if the run wrote none of that name.

        Raises:
            ReceivedError: the file is gone, damaged, a link or no regular file.
        """
        return _verified(self.path, name, self.manifest)

    def files_below(self, name: str) -> list[str]:
        """Names of the run's files in a folder of it, e.g. ``learning_curves``, in their order."""
        outputs = self.manifest.get("outputs")
        if outputs is None:  # written by a version that recorded no outputs
            files = (self.path / name).rglob("*")
            found = [str(file.relative_to(self.path)) for file in files if file.is_file()]
        else:
            found = [output for output in outputs if Path(name) in Path(output).parents]
        return sorted(found)


def read_finished_run(folder: Path) -> FinishedRun:
    """Read config, manifest and results of a run directory, and verify their hashes.

    Files for which an earlier version recorded no hash are not verified.

    Raises:
        ReceivedError: names the file that is missing, damaged or of another kind.
    """
    try:
        return _read(folder)
    except RecursionError as error:
        raise ReceivedError(f"{_shown(folder)}: its records are nested too deeply") from error


def check_recorded(file: Path) -> None:
    """Refuse a file of a finished run that was changed since.

    A file without a manifest beside it, or that the manifest does not name, is not checked.

    Raises:
        ReceivedError: names the file.
    """
    record = file.parent / MANIFEST
    if record.exists() and not record.is_symlink():  # in a hub's cache all files are links
        manifest = received_json(file.parent, MANIFEST)
        outputs = manifest.get("outputs") if isinstance(manifest, dict) else None
        if isinstance(outputs, dict) and file.name in outputs:
            _verified(file.parent, file.name, manifest)


def _read(folder: Path) -> FinishedRun:
    for name in (MANIFEST, CONFIG, RESULTS):
        if not os.path.lexists(folder / name):
            raise ReceivedError(f"{_shown(folder)} is no finished run: it has no {name}")
    manifest = received_json(folder, MANIFEST)
    check_record(_Manifest, manifest, folder / MANIFEST)
    entries = {key: value for key, value in manifest.items() if key != "sha256"}
    if json_sha256(entries) != manifest.get("sha256", json_sha256(entries)):
        raise ReceivedError(f"{_shown(folder / MANIFEST)} is not what the run wrote")
    config = received_yaml(folder, CONFIG)
    check_record(_Anything, config, folder / CONFIG)
    _check_run_hash(folder, config, manifest)
    for name in (CONFIG, RESULTS):
        _verified(folder, name, manifest)
    results = read_results(folder)
    # Earlier versions recorded credentials; nothing that is made from a record repeats them.
    return FinishedRun(folder, redacted(_in_todays_keys(config)), redacted(manifest), results)


class _Anything(BaseModel):
    """A record in which further entries are allowed; subclasses declare those that are used."""

    model_config = ConfigDict(extra="allow", strict=True)


class _File(_Anything):
    path: str
    bytes: int
    sha256: str


class _Manifest(_Anything):
    run_hash: str
    config: dict[str, Any]
    code: dict[str, Any] = {}
    packages: dict[str, Any] = {}
    hardware: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    data: dict[str, Any] = {}
    files: dict[str, _File] = {}
    inputs: dict[str, list[int]] = {}
    outputs: dict[str, str] = {}


def _in_todays_keys(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run of an earlier version, as today's writes it.

    So that it can be compared with a run of today that differs in nothing else.
    """
    for old, new in RENAMED_KEYS.items():
        place, _, last = old.rpartition(".")
        section = _section(config, place)
        if last in section:
            renamed = new.rpartition(".")[2]
            items = {renamed if key == last else key: value for key, value in section.items()}
            section.clear()
            section.update(items)
    for place, kind, key, value in LATER_KEYS:
        if kind is None:
            config.setdefault(place, {}).setdefault(key, value)
        elif (section := _section(config, place)).get("kind") == kind:
            section.setdefault(key, value)
    return config


def _section(config: dict[str, Any], place: str) -> dict[str, Any]:
    """The section of a dotted name, itself; a new empty one if there is none."""
    section: Any = config
    for name in filter(None, place.split(".")):
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else {}


def _check_run_hash(folder: Path, config: dict[str, Any], manifest: dict[str, Any]) -> None:
    try:
        found = run_hash(config)
    except TypeError as error:  # values or keys that JSON does not have
        raise ReceivedError(f"{_shown(folder / CONFIG)} is no config of a run") from error
    if found != manifest["run_hash"]:
        raise ReceivedError(
            f"{_shown(folder / CONFIG)} was changed since: its hash is {found}, the manifest says "
            f"{shown(manifest['run_hash'])}"
        )


def _verified(folder: Path, name: str, manifest: Mapping[str, Any]) -> Path | None:
    outputs = manifest.get("outputs")
    if name not in outputs if outputs is not None else not os.path.lexists(folder / name):
        return None
    path = received_file(folder, name)
    try:
        whole = outputs is None or file_sha256(path) == outputs[name]
    except OSError as error:
        raise ReceivedError(f"{_shown(path)} cannot be read: {error.strerror}") from error
    if not whole:
        raise ReceivedError(f"{_shown(path)} is not what the run wrote: its sha256 is another")
    return path


def _shown(path: Path) -> str:
    return printable(str(path))
