"""The summary of a sweep: one row per setting, and one line for each job that is not done.

Seeds of the merging step and of the experts make no setting: a row is the mean over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

from rich import box
from rich.table import Table

from statsmerging.report.repetitions import RepeatedRun, is_expert_seed, rows_by_method
from statsmerging.report.tables.accuracy import method_numbers
from statsmerging.report.tables.by_setting import COLUMNS
from statsmerging.report.tables.content import Row, deviation_caption
from statsmerging.report.tables.terminal import cell_text
from statsmerging.report.tables.text import escape, markdown_row
from statsmerging.runs.directory import RESULTS
from statsmerging.runs.journal import Entry, Journal
from statsmerging.runs.results import ANEW, RunResults, method_title, read_results

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
        """The summary for the terminal: rows of each setting, over all its zoos and seeds.

        A setting is named by the overrides that not all jobs share.
        """
        rows = list(self._rows())
        headings, texts = _content(rows)
        caption = cell_text(deviation_caption(rows)) or None
        table = Table(box=box.SIMPLE_HEAD, title=self._title(), caption=caption)
        for heading in headings:
            is_text = heading in _TEXTS
            table.add_column(heading, justify="left" if is_text else "right", no_wrap=not is_text)
        for row in texts:
            table.add_row(*map(cell_text, row))
        return table

    def markdown(self) -> str:
        """Summary and complaints in Markdown."""
        rows = list(self._rows())
        headings, texts = _content(rows)
        caption = deviation_caption(rows)
        title = f"**{self._title()}**" + (f" · {escape(caption)}" if caption else "")
        lines = [title, "", markdown_row(headings)]
        lines.append(markdown_row(["---" if name in _TEXTS else "---:" for name in headings]))
        lines += [markdown_row(map(escape, row)) for row in texts]
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

    def _rows(self) -> Iterator[Row]:
        """Labels and numbers of each setting; the first of its rows names it."""
        settings: dict[str, list[Entry]] = {}
        for entry in self.entries:
            own = self._distinctive(entry.overrides)
            named = [item for item in own if _key(item) != "seed" and not _is_of_zoo(item)]
            settings.setdefault(" ".join(named), []).append(entry)
        for setting, entries in settings.items():
            done = [entry for entry in entries if entry.state == "done"]
            labels = (setting, f"{len(done)}/{len(entries)}")
            for row in _methods(done) or [Row(("",), (None,) * len(COLUMNS))]:
                yield replace(row, labels=(*labels, *row.labels))
                labels = ("", "")


def _content(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and texts, without columns of numbers that are empty in all rows."""
    headings = (*_LABELS, *(column.heading for column in COLUMNS))
    texts = [
        [*row.labels, *("" if number is None else number.text for number in row.numbers)]
        for row in rows
    ]
    shown = [
        heading in _LABELS or any(row[column] for row in texts)
        for column, heading in enumerate(headings)
    ]
    return list(compress(headings, shown)), [list(compress(row, shown)) for row in texts]


def _methods(entries: Sequence[Entry]) -> list[Row]:
    """Title and numbers of each row of the last method, over the jobs that have it."""
    runs = [
        RepeatedRun(results, " ".join(filter(_is_of_zoo, entry.overrides)))
        for entry in entries
        if (results := _last_method(Path(entry.directory))) is not None
    ]
    rows = []
    for name, found in rows_by_method(runs).items():
        title = method_title(name, next(iter(found.values())).title)
        rows.append(Row((title,), method_numbers(found, COLUMNS)))
    return rows


def _last_method(directory: Path) -> RunResults | None:
    """The results with the last method alone; ``None`` for jobs without any, such as report.

    A transferred method has two rows: predicted coefficients, and coefficients learned anew.
    """
    if not (directory / RESULTS).exists():
        return None
    results = read_results(directory)
    *_, last = results.methods
    names = [last.removesuffix(ANEW), last] if last.endswith(ANEW) else [last]
    methods = {name: results.methods[name] for name in names if name in results.methods}
    return results.model_copy(update={"methods": methods})


def _is_of_zoo(override: str) -> bool:
    """Whether an override gives a seed of the experts."""
    return is_expert_seed(_key(override))


def _key(override: str) -> str:
    return override.lstrip("+").partition("=")[0]
