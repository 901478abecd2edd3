"""What became of a run, from what its directory and the journals say; nothing is written."""

from __future__ import annotations

import os
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from statsmerging.errors import UserError
from statsmerging.runs.directory import (
    CHECKPOINTS,
    CONFIG,
    ERROR,
    LOCK,
    LOG,
    MANIFEST,
    RESULTS,
    is_finished,
)
from statsmerging.runs.journal import LastTry
from statsmerging.store.locks import is_held
from statsmerging.store.received import LARGEST_TEXT, received_file, received_text

#: ``missing``: it never began, or nothing is left of it.
Outcome = Literal["finished", "running", "failed", "interrupted", "missing"]

#: The order in which they are counted.
OUTCOMES: tuple[Outcome, ...] = ("finished", "running", "failed", "interrupted", "missing")


@dataclass(frozen=True)
class RunState:
    """The state of one run.

    Attributes:
        reason: of a failed run, in one line.
        record: of a failed run, the file that tells more.
        learned: how far the learning of a running or interrupted run has come at its last
            checkpoint, e.g. ``step 40 of stats_merging``.
        changed: when something in its directory last changed, in seconds since 1970.
    """

    outcome: Outcome
    reason: str = ""
    record: Path | None = None
    learned: str = ""
    changed: float | None = None


def state_of(run: Path, last: LastTry | None) -> RunState:
    """The state of a run.

    A process at work holds the run's lock, and the system releases it however the process ends:
    so a killed run is told from a running one.

    Args:
        run: its directory.
        last: its last job in a sweep, if there was one.
    """
    if is_held(run / LOCK):
        return RunState("running", learned=_learned(run), changed=_last_change(run))
    if is_finished(run):
        return RunState("finished", changed=_time(run / MANIFEST))
    failure = _failure(run, last)
    if failure is not None:
        return failure
    if (run / CONFIG).exists():
        return RunState("interrupted", learned=_learned(run), changed=_last_change(run))
    return RunState("missing")


def _failure(run: Path, last: LastTry | None) -> RunState | None:
    """The state of a run whose last try has failed; ``None`` if it has not."""
    began = _time(run / CONFIG)  # written by every try
    if (_time(run / ERROR) or 0) >= (began or 0) and (run / ERROR).exists():
        return RunState("failed", _last_line(run), run / ERROR, changed=_time(run / ERROR))
    if last is not None and last.entry.state == "failed" and last.time >= (began or 0):
        if began is None and not last.entry.refused:
            return None  # what it left was deleted
        record = run / LOG if (run / LOG).exists() else None
        return RunState("failed", last.entry.message, record, changed=last.time)
    if began is not None and (_time(run / RESULTS) or 0) >= began:
        reason = "it ended, and its results are not complete"
        return RunState("failed", reason, run / LOG, changed=_time(run / RESULTS))
    return None


def _last_line(run: Path) -> str:
    """The last line of the traceback that a failed run has left: the error."""
    try:
        lines = received_text(run, ERROR).split("\n")
    except UserError as error:
        return str(error)
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _learned(run: Path) -> str:
    """Step and method of the newest checkpoint; empty if there is none that can be read."""
    found = [file for file in (run / CHECKPOINTS).glob("*.ckpt") if _time(file) is not None]
    for file in sorted(found, key=lambda file: _time(file) or 0, reverse=True):
        step = _steps_in(file)
        if step is not None:
            method = file.stem.removesuffix(".before").rpartition("-")[0]
            return f"step {step} of {method}"
    return ""


def _steps_in(checkpoint: Path) -> int | None:
    """The number of steps in Lightning's checkpoint, without torch: read as a list of opcodes."""
    try:
        with zipfile.ZipFile(received_file(checkpoint.parent, checkpoint.name)) as archive:
            (entry,) = (item for item in archive.infolist() if item.filename.endswith("/data.pkl"))
            content = archive.read(entry) if entry.file_size <= LARGEST_TEXT else b""
        is_next = False
        for code, value, _ in pickletools.genops(content):
            if is_next and isinstance(value, int) and "INT" in code.name:
                return value
            is_next = value == "global_step" or (is_next and code.name.endswith("PUT"))
    except (UserError, OSError, ValueError, RuntimeError, zipfile.BadZipFile):
        pass  # damaged, or being replaced: the run itself will notice
    return None


def _last_change(run: Path) -> float | None:
    """When the newest file of a run was written."""
    times = [_time(Path(folder, name)) or 0 for folder, _, names in os.walk(run) for name in names]
    return max(times, default=None)


def _time(file: Path) -> float | None:
    """When a file was last written; ``None`` if there is none."""
    try:
        return file.lstat().st_mtime
    except OSError:
        return None
