"""The outcome of every job of a sweep: one small file per job, written by the job itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from statsmerging.store.files import read_json, write_json
from statsmerging.store.secrets import redacted

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
    """

    number: int
    overrides: tuple[str, ...]
    directory: str
    state: JobState
    message: str = ""


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
        found = [read_json(path) for path in files]
        return [Entry(**{**entry, "overrides": tuple(entry["overrides"])}) for entry in found]

    def not_begun(self) -> list[tuple[str, ...]]:
        """Overrides of the planned jobs that never began."""
        plan = self.folder / _PLAN
        jobs = read_json(plan) if plan.exists() else []
        begun = {entry.number for entry in self.entries()}
        return [tuple(job) for number, job in enumerate(jobs) if number not in begun]
