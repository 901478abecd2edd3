"""The end of a sweep: rows per setting, and one line for every job that is not done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from rich import box
from rich.table import Table

from statsmerging.report.rows import Results, method_title, percentage
from statsmerging.report.tables.content import numbers_over_seeds
from statsmerging.report.tables.markdown import escape, markdown_row
from statsmerging.report.tables.sweep import COLUMNS
from statsmerging.report.tables.terminal import cell_text
from statsmerging.runs.journal import Entry, Journal
from statsmerging.runs.results import ANEW
from statsmerging.store.files import read_json

#: Columns that say what was run; those of text stand to the left.
_LABELS = ("setting", "jobs done", "method")
_TEXTS = ("setting", "method")

#: Columns of numbers, and the keys of each in a row of ``results.json``.
_NUMBERS = dict(COLUMNS)


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
        """Rows of each setting, named by what not all jobs have; its jobs differ in the seed."""
        table = Table(box=box.SIMPLE_HEAD, title=self._title())
        headings, rows = self._content()
        for heading in headings:
            table.add_column(heading, justify="left" if heading in _TEXTS else "right")
        for row in rows:
            table.add_row(*map(cell_text, row))
        return table

    def markdown(self) -> str:
        """The same, and the complaints, in Markdown."""
        headings, rows = self._content()
        lines = [f"**{self._title()}**", "", markdown_row(headings)]
        lines.append(markdown_row(["---" if name in _TEXTS else "---:" for name in headings]))
        lines += [markdown_row(map(escape, row)) for row in rows]
        lines += ["", *(f"- {escape(line)}" for line in self.complaints())]
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

    def _content(self) -> tuple[list[str], list[list[str]]]:
        """Headings and rows, without the columns of numbers that no row has."""
        headings, rows = (*_LABELS, *_NUMBERS), list(self._rows())
        shown = [
            heading in _LABELS or any(row[column] for row in rows)
            for column, heading in enumerate(headings)
        ]
        return list(compress(headings, shown)), [list(compress(row, shown)) for row in rows]

    def _rows(self) -> Iterator[tuple[str, ...]]:
        settings: dict[str, list[Entry]] = {}
        for entry in self.entries:
            own = [item for item in self._own(entry.overrides) if not _is_seed(item)]
            settings.setdefault(" ".join(own), []).append(entry)
        for setting, entries in settings.items():
            done = [entry for entry in entries if entry.state == "done"]
            labels = (setting, f"{len(done)}/{len(entries)}")
            for cells in _methods(done) or [("",) * (1 + len(_NUMBERS))]:
                yield (*labels, *cells)
                labels = ("", "")


def _is_seed(override: str) -> bool:
    return override.lstrip("+").startswith("seed=")


def _methods(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Title and numbers of each row of the last method, over the jobs that have it."""
    rows: dict[str, list[Results]] = {}
    for entry in entries:
        for name, row in _last_method(entry).items():
            rows.setdefault(name, []).append(row)
    return [(method_title(name, found[0]), *_numbers(found)) for name, found in rows.items()]


def _last_method(entry: Entry) -> dict[str, Results]:
    """The rows of the job's last method: predicted and learned anew, where it transfers.

    Jobs like report have none.
    """
    path = Path(entry.directory) / "results.json"
    if not path.exists():
        return {}
    methods = read_json(path)["methods"]
    *_, last = methods
    names = [last.removesuffix(ANEW), last] if last.endswith(ANEW) else [last]
    return {name: methods[name] for name in names if name in methods}


def _numbers(rows: Sequence[Results]) -> Iterator[str]:
    """Means and deviations over the jobs, in the order of the columns."""
    cells = [[percentage(row, path) for row in rows] for path in _NUMBERS.values()]
    for number in numbers_over_seeds(cells):
        yield "" if number is None else number.text
