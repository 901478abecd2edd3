"""The index page: all sweeps of a folder, with their best rows and links to their reports."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from statsmerging.report.index import Sweep
from statsmerging.report.page.answer import Values, contest_values
from statsmerging.report.page.html import PLAIN, folder_title, rendered, summary_of
from statsmerging.runs.manifest import this_command

#: Problems of a sweep, and best rows of each, that the index shows.
PROBLEMS, ROWS = 2, 3


def index_page(sweeps: Sequence[Sweep], folder: Path, place: Path, report: str) -> str:
    """The page as text.

    Args:
        sweeps: newest first.
        folder: of all of them.
        place: the folder that the page is written to, from which it links to reports.
        report: name of a report's page.
    """
    return rendered(
        "index.html",
        PLAIN,
        title=f"Sweeps in {folder.name or folder.absolute().name}",
        sweeps=[_sweep(sweep, place, report) for sweep in sweeps],
        runs=sum(len(group.members) for sweep in sweeps for group in sweep.groups),
    )


def _sweep(sweep: Sweep, place: Path, report: str) -> Values:
    link = None
    if sweep.report is not None:
        link = quote(Path(os.path.relpath(sweep.report / report, place)).as_posix())
    shown = [
        {**values, "rows": values["rows"][:ROWS], "others": max(0, len(each.places) - ROWS)}
        for each in sweep.contests[:PROBLEMS]
        for values in [contest_values(each, several=len(sweep.contests) > 1)]
    ]
    stamps = dict.fromkeys(stamp for group in sweep.groups for stamp in group.stamps)
    return {
        "name": folder_title(sweep.folder),
        "link": link,
        "newer": sweep.newer,
        "summary": summary_of(sweep.groups),
        "unfinished": sweep.unfinished,
        "when": _when(sweep.begun, sweep.ended),
        "stamps": list(stamps),
        "contests": shown,
        "others": len(sweep.contests) - len(shown),
        "command": f"{this_command()} {shlex.join(['job=report', f'job.runs={sweep.folder}'])}",
    }


def _when(begun: datetime, ended: datetime) -> str:
    """``2026-11-27 19:41 to 20:03``; of one minute, that alone."""
    first, last = f"{begun:%Y-%m-%d %H:%M}", f"{ended:%Y-%m-%d %H:%M}"
    if first == last:
        return first
    return f"{first} to {last[11:] if begun.date() == ended.date() else last}"
