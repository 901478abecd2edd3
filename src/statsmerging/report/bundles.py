"""Runs that others sent, beside run directories: which are copies, and whose they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from statsmerging.report.runs import ReportedRun, finished_runs, name_runs, read_run
from statsmerging.runs.bundled import Original, original_of
from statsmerging.runs.bundles import SUFFIX, opened_bundle
from statsmerging.runs.directory import without_presentation
from statsmerging.store.personal_paths import HiddenPaths
from statsmerging.store.received import ReceivedError, received_file

log = logging.getLogger(__name__)

#: The sender of the runs in run directories.
HERE = "here"


def reported_runs(folder: Path) -> list[ReportedRun]:
    """All finished runs of a report: in directories below a folder, then in bundles, by name.

    A copy of a run that is there already is left out. Beside bundles, the configs of directories
    have their paths shortened too: settings are compared by them. A warning names what is damaged.

    Args:
        folder: of the runs and bundles, or one bundle.
    """
    runs = list(finished_runs(folder))
    bundles = list(_bundle_files(folder))
    if not bundles:
        return runs
    seen = {original_of(run.path, run.manifest) for run in runs}
    received, copies = [], []
    for file in bundles:
        try:
            sent = list(_runs_of(file, folder))
        except ReceivedError as error:
            log.warning("left out: %s", error)
            continue
        known = [run for original, run in sent if original in seen]
        copies += [str(run.path.relative_to(folder)) for run in known]
        received += [run for original, run in sent if original not in seen]
        seen |= {original for original, _ in sent}
    name_runs("run(s) in bundles are copies of others here, left out", copies)
    if not received:
        return runs
    hidden = HiddenPaths(without_presentation(run.config) for run in runs)
    return [replace(run, config=hidden.in_record(run.config)) for run in runs] + received


def same_content(run: ReportedRun, other: ReportedRun, *, same_experts: bool) -> bool:
    """Whether the manifests of runs of two senders allow that both had the same images.

    Runs of one sender are told apart by their configs alone.

    Args:
        same_experts: whether they must have had the same experts too.
    """
    if run.bundle == other.bundle:
        return True
    parts = ["data", "weights"] if same_experts else ["data"]
    return all(
        other.manifest[part].get(name, sha256) == sha256
        for part in parts
        if part in run.manifest and part in other.manifest
        for name, sha256 in run.manifest[part].items()
    )


def sender(run: ReportedRun) -> str:
    """The bundle that a run came in, or ``HERE``."""
    return HERE if run.bundle is None else run.bundle.name


def senders(runs: Iterable[ReportedRun]) -> str:
    """The senders of some runs, each once."""
    return ", ".join(dict.fromkeys(map(sender, runs)))


def whose_runs(runs: Sequence[ReportedRun]) -> list[str]:
    """How many runs are whose, one line each; none if no run came in a bundle."""
    if not any(run.bundle for run in runs):
        return []
    counts = Counter(run.bundle for run in runs)
    lines = [f"{counts[None]} run(s) in run directories here"] if counts[None] else []
    bundles = sorted((bundle for bundle in counts if bundle), key=lambda bundle: bundle.name)
    return lines + [f"{counts[bundle]} run(s) from {bundle.about}" for bundle in bundles]


def _bundle_files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for file in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            yield received_file(folder, str(file.relative_to(folder)))
        except ReceivedError as error:
            log.warning("left out: %s", error)


def _runs_of(file: Path, folder: Path) -> Iterator[tuple[Original, ReportedRun]]:
    """Each run of a bundle, with what it has in common with copies of it.

    Raises:
        ReceivedError: the bundle or any run in it is damaged.
    """
    name = file.name if file == folder else file.relative_to(folder).as_posix()
    with opened_bundle(file, name) as opened:
        for run, directory in opened.runs.items():
            found = read_run(directory)
            original = original_of(directory, found.manifest)
            yield original, replace(found, path=file / run, bundle=opened.bundle)
