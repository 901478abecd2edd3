"""The end of a sweep: one row per setting, and one line for every job that is not done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from statsmerging.records.files import read_json
from statsmerging.records.journal import Entry, Journal
from statsmerging.report.tables.markdown import markdown_row

#: Columns; those of text stand to the left.
_HEADINGS = ("setting", "jobs done", "method", "average", "normalised", "agreement")
_TEXTS = ("setting", "method")


@dataclass(frozen=True)
class SweepSummary:
    """What a journal says.

    Attributes:
        entries: jobs that have begun.
        not_begun: overrides of those that have not.
    """

    entries: Sequence[Entry]
    not_begun: Sequence[tuple[str, ...]]

    @classmethod
    def of(cls, journal: Journal) -> SweepSummary:
        """Read the journal as it stands now; the sweep may still be running."""
        return cls(journal.entries(), journal.not_begun())

    @property
    def complete(self) -> bool:
        """Whether every job is done."""
        return not self.not_begun and all(entry.state == "done" for entry in self.entries)

    def table(self) -> Table:
        """One row per setting, named by what not all jobs have; its jobs differ in the seed."""
        table = Table(box=box.SIMPLE_HEAD, title=self._title())
        for heading in _HEADINGS:
            table.add_column(heading, justify="left" if heading in _TEXTS else "right")
        for row in self._rows():
            table.add_row(*map(escape, row))
        return table

    def markdown(self) -> str:
        """The same, and the complaints, in Markdown."""
        lines = [f"**{self._title()}**", "", markdown_row(_HEADINGS)]
        lines.append(markdown_row(["---" if name in _TEXTS else "---:" for name in _HEADINGS]))
        lines += [markdown_row(row) for row in self._rows()]
        lines += ["", *(f"- {line}" for line in self.complaints())]
        return "\n".join(lines).rstrip() + "\n"

    def complaints(self) -> Iterator[str]:
        """One line per job that is not done: which, what happened, where to look."""
        for entry in self.entries:
            name = f"job {entry.number} ({' '.join(self._own(entry.overrides))})"
            if entry.state == "failed":
                trace = Path(entry.directory) / "error.txt"
                yield f"{name} failed: {entry.message}" + (f"; {trace}" if trace.exists() else "")
            elif entry.state == "stopped":
                yield f"{name} was stopped; the same command continues it"
            elif entry.state == "running":
                yield f"{name} did not end: it is still running, or it was killed"
        for overrides in self.not_begun:
            yield f"a job ({' '.join(self._own(overrides))}) never began"

    def _title(self) -> str:
        done = sum(entry.state == "done" for entry in self.entries)
        return f"{done} of {len(self.entries) + len(self.not_begun)} jobs done"

    def _own(self, overrides: Sequence[str]) -> list[str]:
        """Those that not all jobs have."""
        jobs = [*(entry.overrides for entry in self.entries), *self.not_begun]
        return [item for item in overrides if not all(item in job for job in jobs)]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        settings: dict[str, list[Entry]] = {}
        for entry in self.entries:
            own = [item for item in self._own(entry.overrides) if not _is_seed(item)]
            settings.setdefault(" ".join(own), []).append(entry)
        for setting, entries in settings.items():
            done = [entry for entry in entries if entry.state == "done"]
            numbers = [row for entry in done if (row := _last_method(entry)) is not None]
            yield (setting, f"{len(done)}/{len(entries)}", *_cells(numbers))


def _is_seed(override: str) -> bool:
    return override.lstrip("+").startswith("seed=")


def _last_method(entry: Entry) -> dict[str, Any] | None:
    """The last row of the job's table; jobs like report have none."""
    path = Path(entry.directory) / "results.json"
    if not path.exists():
        return None
    name, row = list(read_json(path)["methods"].items())[-1]
    return {"name": name, **row}


def _cells(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    if not rows:
        return ("", "", "", "")
    title = str(rows[0].get("title", rows[0]["name"]))
    keys = ("average", "normalised_average", "teacher_agreement")
    return (title, *(_percent([row.get(key) for row in rows]) for key in keys))


def _percent(values: Sequence[float | None]) -> str:
    numbers = [100 * value for value in values if value is not None]
    if not numbers:
        return ""
    mean = f"{fmean(numbers):.1f}"
    return f"{mean} ± {stdev(numbers):.1f}" if len(numbers) > 1 else mean
