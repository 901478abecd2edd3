"""What a run that was not completed has left, and its deletion: what we wrote, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from statsmerging.errors import UserError
from statsmerging.runs.directory import (
    ERROR,
    LOCK,
    LOG,
    MANIFEST,
    OUTPUTS,
    RunDirectory,
    is_finished,
)
from statsmerging.store.locks import waiting_lock

#: The files that jobs, loggers and their libraries write in a run directory, part by part. A file
#: that none of these describes is not ours, whatever folder it lies in.
_WRITTEN = (
    *(name for name in OUTPUTS if "." in name),  # the others are folders
    MANIFEST,
    LOG,
    ERROR,
    "task_vectors.bin",
    "experts/*.safetensors",
    "checkpoints/*-*.ckpt",
    "checkpoints/*-*.ckpt.*.damaged/*.ckpt",
    "learning_curves/*/version_*/metrics.csv",
    "learning_curves/*/version_*/hparams.yaml",
    "tensorboard/events.out.tfevents.*",
    ".*.partial",
    "*/.*.partial",
)

#: Folders that a run makes; they go when they are empty.
_FOLDERS = ("experts", "checkpoints", "learning_curves", "tensorboard", "wandb")

#: W&B's folders and files below ``wandb``; it makes links among them.
_OF_WANDB = ("run-*", "offline-run-*", "latest-run", "debug*.log", "cache", "data", "tmp")

#: Seconds to wait for a lock that somebody may only be probing.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Leftovers:
    """The files in the directory of a run that is not complete.

    Attributes:
        ours: what the run has written; its config is the last.
        foreign: everything else.
    """

    ours: list[Path]
    foreign: list[Path]

    @property
    def bytes(self) -> int:
        """The size of what the run has written."""
        return sum(file.lstat().st_size for file in self.ours if file.exists())


def leftovers(run: RunDirectory) -> Leftovers:
    """Look at what a run has left. Links are not followed.

    Raises:
        UserError: the directory is a link, or its config is not the run's.
    """
    run.check_own()
    ours: list[Path] = []
    foreign: list[Path] = []
    for file in _files(run.path):
        if file.parent == run.path and file.name in (LOCK, f"{LOCK}.held"):
            continue  # held until the rest is gone
        (ours if _is_ours(file, run.path) else foreign).append(file)
    # The config tells that the directory is ours, also to one who deletes the rest later.
    return Leftovers(sorted(ours, key=lambda file: file == run.config), sorted(foreign))


def delete_leftovers(run: RunDirectory) -> Leftovers:
    """Delete what a run that is not complete has written, and the folders that are empty then.

    Returns:
        What was found; the foreign files are still there.

    Raises:
        HeldError: the run is running.
        UserError: it is complete by now, or the directory is not its own; nothing was deleted.
    """
    with waiting_lock(run.path / LOCK, "deleting", at_most=_PATIENCE):
        if is_finished(run.path):
            raise UserError("it is complete by now")
        found = leftovers(run)
        for file in found.ours:
            file.unlink(missing_ok=True)
        for name in _FOLDERS:
            for folder, _, _ in os.walk(run.path / name, topdown=False):
                with suppress(OSError):  # a link, or a folder with other files: it stays
                    Path(folder).rmdir()
        (run.path / LOCK).unlink(missing_ok=True)  # one who waits for it notices that it is gone
    with suppress(OSError):
        run.path.rmdir()
    return found


def _files(folder: Path) -> Iterator[Path]:
    """All files and links below a folder; links to folders are not entered."""
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        yield from (Path(place, name) for name in (*names, *links))


def _is_ours(file: Path, run: Path) -> bool:
    parts = file.relative_to(run).parts
    if len(parts) > 1 and parts[0] == "wandb":
        return any(fnmatchcase(parts[1], pattern) for pattern in _OF_WANDB)
    return not file.is_symlink() and any(
        len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))
        for pattern in (entry.split("/") for entry in _WRITTEN)
    )
