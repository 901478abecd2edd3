"""All sweeps below a folder: what they ran, when, who is ahead, and where their reports are."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from statsmerging.progress import track
from statsmerging.report.groups import RunGroup, by_setting
from statsmerging.report.ranking import Contest, contests
from statsmerging.report.runs import ReportedRun, read_run, unfinished_runs
from statsmerging.runs.directory import CONFIG, MANIFEST, is_finished
from statsmerging.store.received import ReceivedError, received_yaml

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """The finished runs that lie side by side in a folder.

    Attributes:
        folder: of their directories.
        groups: the runs, by setting.
        contests: their rankings.
        unfinished: number of runs without results.
        begun: when the first of them ended.
        ended: when the last of them ended.
        report: folder of the report on them; ``None`` if there is none.
        newer: whether a run ended after that report.
    """

    folder: Path
    groups: Sequence[RunGroup]
    contests: Sequence[Contest]
    unfinished: int
    begun: datetime
    ended: datetime
    report: Path | None
    newer: bool


@dataclass(frozen=True)
class _Report:
    folder: Path
    runs: Path
    written: float


def sweeps(folder: Path, record: str, page: str) -> list[Sweep]:
    """All sweeps below a folder, the newest first; a warning names each damaged run.

    Args:
        folder: of all sweeps and reports.
        record: name of the file that a report leaves in its folder.
        page: name of its page.
    """
    reports = list(_reports(folder, record, page))
    places: dict[Path, list[Path]] = {}
    for run in _run_folders(folder):
        places.setdefault(run.parent, []).append(run)
    found = []
    for place in track(places, "reading the runs"):
        runs = list(_read(places[place]))
        if runs:
            found.append(_sweep(place, runs, reports))
    return sorted(found, key=lambda sweep: sweep.ended, reverse=True)


def _run_folders(folder: Path) -> Iterator[Path]:
    """Directories of finished runs, but not of those that a run holds: repetitions of it."""
    for manifest in sorted(folder.rglob(MANIFEST)):
        run = manifest.parent
        outer = (folder / part for part in run.relative_to(folder).parents)
        if is_finished(run) and not any(map(is_finished, outer)):
            yield run


def _read(paths: Sequence[Path]) -> Iterator[ReportedRun]:
    for path in paths:
        try:
            yield read_run(path)
        except ReceivedError as error:
            log.warning("left out: %s", error)


def _sweep(folder: Path, runs: Sequence[ReportedRun], reports: Sequence[_Report]) -> Sweep:
    groups = by_setting(runs)
    times = [(run.path / MANIFEST).stat().st_mtime for run in runs]
    place = folder.resolve()
    # That of the folder itself before one of a folder around it.
    on_it = [each for each in reports if place.is_relative_to(each.runs)]
    report = max(on_it, key=lambda each: (len(each.runs.parts), each.written), default=None)
    return Sweep(
        folder,
        groups,
        contests(groups),
        unfinished=sum(os.sep not in name for name in unfinished_runs(folder)),
        begun=datetime.fromtimestamp(min(times)),
        ended=datetime.fromtimestamp(max(times)),
        report=None if report is None else report.folder,
        newer=report is not None and max(times) > report.written,
    )


def _reports(folder: Path, record: str, page: str) -> Iterator[_Report]:
    """The reports below a folder that have a page and tell which runs they are on."""
    for place in sorted(path.parent for path in folder.rglob(record)):
        try:
            config = received_yaml(place, CONFIG)
            job = config.get("job") if isinstance(config, dict) else None
            runs = job.get("runs") if isinstance(job, dict) else None
            if isinstance(runs, str) and (place / page).is_file():
                yield _Report(place, Path(runs).resolve(), (place / page).stat().st_mtime)
        except ReceivedError as error:
            log.warning("left out: %s", error)
