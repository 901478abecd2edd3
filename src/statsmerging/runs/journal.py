"""The outcome of every job of a sweep: one small file per job, written by the job itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from statsmerging.store.files import read_json, write_json
from statsmerging.store.received import ReceivedError, check_record, received_json
from statsmerging.store.secrets import redacted

log = logging.getLogger(__name__)

#: The folder below ``hydra.sweep.dir`` that holds the journals, one per sweep.
JOURNALS = "sweeps"

JobState = Literal["running", "done", "failed", "stopped"]

_PLAN = "plan.json"


@dataclass(frozen=True)
class Entry:
    """One job.

    Attributes:
        number: of the job within its sweep, from 0.
        overrides: ``key=value`` of this job.
        directory: its run directory.
        state: a killed job stays ``running``, because it could not write anything else.
        message: why it failed, in one line.
        refused: whether it failed because its config was refused; such a job leaves no directory.
    """

    number: int
    overrides: tuple[str, ...]
    directory: str
    state: JobState
    message: str = ""
    refused: bool = False


@dataclass(frozen=True)
class LastTry:
    """What a run's last job in a sweep wrote of itself, and when, in seconds since 1970."""

    entry: Entry
    time: float


class Journal:
    """The folder of one sweep's entries. Each job writes its own file, from any machine.

    Args:
        folder: made on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self, jobs: Sequence[Sequence[str]]) -> None:
        """Write the overrides of all jobs of the sweep, in their order."""
        write_json(self.folder / _PLAN, redacted([list(overrides) for overrides in jobs]))

    def write(self, entry: Entry) -> None:
        """Replace the job's entry."""
        write_json(self.folder / f"{entry.number:05d}.json", redacted(asdict(entry)))

    def entries(self) -> list[Entry]:
        """Entries of all jobs that have begun, by number."""
        files = sorted(path for path in self.folder.glob("*.json") if path.name != _PLAN)
        return [_read_entry(path) for path in files]

    def not_begun(self) -> list[tuple[str, ...]]:
        """Overrides of the planned jobs that never began."""
        plan = self.folder / _PLAN
        jobs = read_json(plan) if plan.exists() else []
        begun = {entry.number for entry in self.entries()}
        return [tuple(job) for number, job in enumerate(jobs) if number not in begun]


def last_tries(sweep: Path) -> dict[str, LastTry]:
    """Run directory → what became of it in the last of all sweeps that had it.

    A warning names entries that cannot be read; they are left out.

    Args:
        sweep: the folder of several sweeps, ``hydra.sweep.dir``.
    """
    found: dict[str, LastTry] = {}
    for file in sorted((sweep / JOURNALS).glob("*/*.json")):
        if file.name == _PLAN:
            continue
        try:
            entry = _read_entry(file)
            time = file.stat().st_mtime
        except (ReceivedError, OSError) as error:
            log.warning("left out: %s", error)
            continue
        earlier = found.get(entry.directory)
        if earlier is None or earlier.time <= time:
            found[entry.directory] = LastTry(entry, time)
    return found


class _Record(BaseModel):
    """An entry as it stands in its file."""

    model_config = ConfigDict(strict=True)

    number: int
    overrides: list[str]
    directory: str
    state: JobState
    message: str = ""
    refused: bool = False


def _read_entry(file: Path) -> Entry:
    record = check_record(_Record, received_json(file.parent, file.name), file)
    return Entry(**{**record.model_dump(), "overrides": tuple(record.overrides)})
