"""A finished run as it goes into a bundle: what a report reads, without paths of the machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from statsmerging.runs.directory import (
    MANIFEST,
    PRESENTATION,
    RESULTS,
    RunDirectory,
    without_presentation,
)
from statsmerging.runs.finished import CURVE_FILE, FinishedRun
from statsmerging.store.hashing import file_sha256
from statsmerging.store.personal_paths import HiddenPaths
from statsmerging.store.received import check_record, is_plain_name, received_json

#: Files of a run that go into a bundle as they are, beside its learning curves.
TABLES = ("outcomes.safetensors", "coefficients.parquet", "statistics.parquet")

#: Entry of a bundled run's manifest: which run it was.
_ORIGINAL = "original"

#: Arguments of a command that set keys of ``PRESENTATION``.
_PRESENTED = re.compile(rf"[+~]*(?:{'|'.join(PRESENTATION)})(?:[./=@].*)?", re.DOTALL)


class Original(NamedTuple):
    """What a run has in common with its copies in bundles.

    Attributes:
        run_hash: hash of its config.
        results: sha256 of its ``results.json``, in which the measured seconds are its own.
    """

    run_hash: str
    results: str


def original_of(folder: Path, manifest: dict[str, Any]) -> Original:
    """Which run a directory holds: its own, or the one of which it is a bundled copy.

    Raises:
        ReceivedError: the manifest's entry is of another kind.
    """
    found = check_record(_Copied, manifest, folder / MANIFEST).original
    if found is not None:
        return Original(found.run_hash, found.results)
    return Original(manifest["run_hash"], file_sha256(folder / RESULTS))


def write_bundled(run: FinishedRun, folder: Path, hidden: HiddenPaths) -> None:
    """Write the copy of a run that goes into a bundle; it is read as any finished run.

    Its hashes are those of the copy. Left out are sizes and times of the files that the run read,
    the sections of the config that change no number (loggers and cache tell of a person and of
    a machine), and of the platform's name all but its first word, because kernels may be named
    after machines.

    Args:
        run: what is copied.
        folder: a new folder.
        hidden: shortens the paths.

    Raises:
        ReceivedError: a file of the run is damaged.
    """
    folder.mkdir(parents=True)
    for name in [*TABLES, *_curves(run)]:
        source = run.file(name)
        if source is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    directory = RunDirectory(folder, hidden.in_record(without_presentation(run.config)))
    results = hidden.in_sentences(received_json(run.path, RESULTS))
    directory.finish(results, _manifest(run, hidden) | {"run_hash": directory.run_hash})


def _manifest(run: FinishedRun, hidden: HiddenPaths) -> dict[str, Any]:
    manifest = {key: value for key, value in run.manifest.items() if key != "sha256"}
    told = {
        "config": without_presentation(manifest["config"]),
        "command": [
            argument
            for argument in manifest.get("command", [])
            if not _PRESENTED.fullmatch(argument)
        ],
        "hardware": {
            key: str(value).partition("-")[0] if key == "platform" else value
            for key, value in manifest.get("hardware", {}).items()
        },
        "inputs": {},
    }
    changed: dict[str, Any] = hidden.in_record(
        {key: told.get(key, value) for key, value in manifest.items()}
    )
    return changed | {_ORIGINAL: original_of(run.path, run.manifest)._asdict()}


def _curves(run: FinishedRun) -> list[str]:
    """Names of the learning curves that a report draws."""
    named = ((name, CURVE_FILE.fullmatch(name)) for name in run.files_below("learning_curves"))
    return [
        name
        for name, found in named
        if found and found[1] in run.results.methods and is_plain_name(found[1])
    ]


class _Entries(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Original(_Entries):
    run_hash: str
    results: str


class _Copied(_Entries):
    original: _Original | None = None
