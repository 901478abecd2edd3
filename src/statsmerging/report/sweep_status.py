"""The status of a sweep for the terminal: one row per run, a line for each failure, the totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

from rich import box
from rich.markup import escape
from rich.table import Table

from statsmerging.errors import printable
from statsmerging.runs.state import OUTCOMES, RunState

#: Columns of the table.
_HEADINGS = ("job", "run", "state", "last change", "")

#: Color of each outcome on a terminal.
_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}

#: Seconds of each unit, and its name, from the longest.
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True)
class RunStatus:
    """One run of a sweep.

    Attributes:
        number: of the job within its sweep, from 0.
        overrides: ``key=value`` of this job.
        mistake: why the command would refuse its config; empty if it would not.
    """

    number: int
    overrides: tuple[str, ...]
    state: RunState
    mistake: str = ""


@dataclass(frozen=True)
class SweepStatus:
    """The state of all runs of a sweep, at the time ``now`` in seconds since 1970."""

    runs: Sequence[RunStatus]
    now: float

    def table(self, only: Container[int] | None = None) -> Table:
        """One row per run, named by the overrides that not all runs of the sweep share.

        Args:
            only: numbers of the runs to show; ``None``: all.
        """
        runs = [run for run in self.runs if only is None or run.number in only]
        rows = [self._row(run) for run in runs]
        shown = [any(row[column] for row in rows) for column in range(len(_HEADINGS))]
        table = Table(box=box.SIMPLE_HEAD)
        for heading in compress(_HEADINGS, shown):
            table.add_column(heading, justify="right" if heading == "job" else "left")
        for run, row in zip(runs, rows, strict=True):
            cells = [escape(printable(text)) for text in row]
            style = _STYLES.get(run.state.outcome)
            cells[2] = f"[{style}]{cells[2]}[/{style}]" if style else cells[2]
            table.add_row(*compress(cells, shown))
        return table

    def failures(self) -> Iterator[str]:
        """One line per run that failed, with its reason, or that the command would refuse."""
        for run in self.runs:
            named = " ".join(self._distinctive(run))
            name = f"job {run.number} ({named})" if named else f"job {run.number}"
            if run.state.outcome == "failed":
                record = f"; {run.state.record}" if run.state.record else ""
                yield f"{name} failed: {run.state.reason}{record}"
            elif run.mistake and run.state.outcome != "finished":
                yield f"{name} will be refused: {run.mistake}"

    def totals(self) -> str:
        """How many runs there are of each state."""
        counts = Counter(run.state.outcome for run in self.runs)
        parts = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
        noun = "run" if len(self.runs) == 1 else "runs"
        return f"{len(self.runs)} {noun}: {', '.join(parts)}" if parts else "no runs"

    def _row(self, run: RunStatus) -> tuple[str, ...]:
        state = run.state
        age = "" if state.changed is None else f"{duration(self.now - state.changed)} ago"
        learned = {"running": "at {}", "interrupted": "continues at {}"}.get(state.outcome, "")
        note = learned.format(state.learned) if state.learned else ""
        return (str(run.number), " ".join(self._distinctive(run)), state.outcome, age, note)

    def _distinctive(self, run: RunStatus) -> list[str]:
        """The overrides that not all runs share."""
        if len(self.runs) == 1:
            return list(run.overrides)
        return [item for item in run.overrides if item not in self._shared]

    @cached_property
    def _shared(self) -> set[str]:
        return set.intersection(*(set(run.overrides) for run in self.runs))


def duration(seconds: float) -> str:
    """A time as its largest whole unit, e.g. ``5 minutes``."""
    for length, unit in _UNITS:
        count = int(seconds // length)
        if count > 0:
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "0 seconds"
