"""The summary of a sweep: one row per setting, and one line for each job that is not done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from rich import box
from rich.table import Table

from statsmerging.report.tables.by_setting import COLUMNS
from statsmerging.report.tables.content import numbers_over_seeds
from statsmerging.report.tables.text import cell_text, escape, markdown_row
from statsmerging.runs.directory import RESULTS
from statsmerging.runs.journal import Entry, Journal
from statsmerging.runs.results import ANEW, MethodRow, method_title, read_results

#: Columns before the numbers; texts are aligned left.
_LABELS = ("setting", "jobs done", "method")
_TEXTS = ("setting", "method")


@dataclass(frozen=True)
class SweepSummary:
    """The state of all jobs of a sweep.

    Attributes:
        entries: jobs that have begun.
        not_begun: overrides of the jobs that have not.
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
        """The summary for the terminal: rows of each setting, over all its seeds.

        A setting is named by the overrides that not all jobs share.
        """
        table = Table(box=box.SIMPLE_HEAD, title=self._title())
        headings, rows = self._content()
        for heading in headings:
            table.add_column(heading, justify="left" if heading in _TEXTS else "right")
        for row in rows:
            table.add_row(*map(cell_text, row))
        return table

    def markdown(self) -> str:
        """Summary and complaints in Markdown."""
        headings, rows = self._content()
        lines = [f"**{self._title()}**", "", markdown_row(headings)]
        lines.append(markdown_row(["---" if name in _TEXTS else "---:" for name in headings]))
        lines += [markdown_row(map(escape, row)) for row in rows]
        lines += ["", *(f"- {escape(line)}" for line in self.complaints())]
        return "\n".join(lines).rstrip() + "\n"

    def complaints(self) -> Iterator[str]:
        """One line per job that is not done: its overrides, what happened, and where to look."""
        for entry in self.entries:
            name = f"job {entry.number} ({' '.join(self._distinctive(entry.overrides))})"
            if entry.state == "failed":
                trace = Path(entry.directory) / "error.txt"
                yield f"{name} failed: {entry.message}" + (f"; {trace}" if trace.exists() else "")
            elif entry.state == "stopped":
                yield f"{name} was stopped; the same command continues it"
            elif entry.state == "running":
                yield f"{name} did not end: it is still running, or it was killed"
        for overrides in self.not_begun:
            yield f"a job ({' '.join(self._distinctive(overrides))}) never began"

    def _title(self) -> str:
        done = sum(entry.state == "done" for entry in self.entries)
        return f"{done} of {len(self.entries) + len(self.not_begun)} jobs done"

    def _distinctive(self, overrides: Sequence[str]) -> list[str]:
        """The overrides that not all jobs share."""
        jobs = [*(entry.overrides for entry in self.entries), *self.not_begun]
        return [item for item in overrides if not all(item in job for job in jobs)]

    def _content(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows, without columns of numbers that are empty in all rows."""
        headings = (*_LABELS, *(column.heading for column in COLUMNS))
        rows = list(self._rows())
        shown = [
            heading in _LABELS or any(row[column] for row in rows)
            for column, heading in enumerate(headings)
        ]
        return list(compress(headings, shown)), [list(compress(row, shown)) for row in rows]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        settings: dict[str, list[Entry]] = {}
        for entry in self.entries:
            own = self._distinctive(entry.overrides)
            without_seed = [item for item in own if not item.lstrip("+").startswith("seed=")]
            settings.setdefault(" ".join(without_seed), []).append(entry)
        for setting, entries in settings.items():
            done = [entry for entry in entries if entry.state == "done"]
            labels = (setting, f"{len(done)}/{len(entries)}")
            for cells in _methods(done) or [("",) * (1 + len(COLUMNS))]:
                yield (*labels, *cells)
                labels = ("", "")


def _methods(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Title, means and deviations of each row of the last method, over the jobs that have it."""
    rows: dict[str, list[MethodRow]] = {}
    for entry in entries:
        for name, row in _last_method(Path(entry.directory)).items():
            rows.setdefault(name, []).append(row)
    cells = []
    for name, found in rows.items():
        numbers = numbers_over_seeds([[column.number(row) for row in found] for column in COLUMNS])
        texts = ["" if number is None else number.text for number in numbers]
        cells.append((method_title(name, found[0].title), *texts))
    return cells


def _last_method(directory: Path) -> dict[str, MethodRow]:
    """The rows of the last method of a run; none for jobs without results, such as report.

    A transferred method has two: predicted coefficients, and coefficients learned anew.
    """
    if not (directory / RESULTS).exists():
        return {}
    methods = read_results(directory).methods
    *_, last = methods
    names = [last.removesuffix(ANEW), last] if last.endswith(ANEW) else [last]
    return {name: methods[name] for name in names if name in methods}
