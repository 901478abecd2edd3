"""Run directories, as the report reads them; every record is checked before it is used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from statsmerging.errors import first_line, printable
from statsmerging.runs.bundles import Bundle
from statsmerging.runs.directory import CONFIG, MANIFEST, RESULTS, WITH_RESULTS
from statsmerging.runs.finished import CURVE_FILE, FinishedRun, read_finished_run
from statsmerging.runs.layer_tables import read_coefficients, read_statistics
from statsmerging.runs.outcomes import Outcomes, read_outcomes
from statsmerging.runs.results import RunResults
from statsmerging.store.received import LARGEST_TEXT, ReceivedError, check_record, received_yaml

log = logging.getLogger(__name__)

#: Columns of ``metrics.csv`` that the learning curves show → title of the curve.
CURVES = {"loss": "loss", "learner_gradient_norm": "norm of the learner's gradient"}

#: Runs that a warning names; of more it gives the number.
NAMED = 3


@dataclass(frozen=True)
class ReportedRun:
    """One finished run.

    Attributes:
        path: the run directory.
        config: the resolved config.
        manifest: content of ``manifest.json``.
        results: content of ``results.json``.
        coefficients: columns ``method``, ``layer``, ``task``, ``coefficient``; no rows if the run
            learned none.
        statistics: columns ``layer``, ``task``, and one column per statistic; ``None`` if the run
            has no such file.
        curves: method → columns ``step`` and those of ``CURVES``; no step twice.
        outcomes: right or wrong on every test image; ``None`` in runs of earlier versions.
        bundle: the bundle that it came in; ``path`` leads through its file then.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: RunResults
    coefficients: pd.DataFrame
    statistics: pd.DataFrame | None
    curves: Mapping[str, pd.DataFrame]
    outcomes: Outcomes | None = None
    bundle: Bundle | None = None


def read_run(folder: Path) -> ReportedRun:
    """Read a run directory.

    Raises:
        ReceivedError: a file is missing, damaged, a link, or of another kind.
    """
    run = read_finished_run(folder)
    check_record(_Config, run.config, folder / CONFIG)
    check_record(_Manifest, run.manifest, folder / MANIFEST)
    coefficients = run.file("coefficients.parquet")
    statistics = run.file("statistics.parquet")
    outcomes = run.file("outcomes.safetensors")
    return ReportedRun(
        folder,
        run.config,
        run.manifest,
        run.results,
        pd.DataFrame() if coefficients is None else read_coefficients(coefficients),
        None if statistics is None else read_statistics(statistics),
        _learning_curves(run),
        None if outcomes is None else read_outcomes(outcomes, run.results),
    )


def run_name(run: ReportedRun, folder: Path) -> str:
    """The run's directory as seen from the folder of all runs."""
    name = run.path.relative_to(folder).as_posix()
    return run.path.absolute().name if name == "." else name


def finished_runs(folder: Path) -> Iterator[ReportedRun]:
    """All finished runs below a folder, by name; a warning names each damaged run."""
    for manifest in sorted(folder.rglob(MANIFEST)):
        if os.path.lexists(manifest.with_name(RESULTS)):
            try:
                yield read_run(manifest.parent)
            except ReceivedError as error:
                log.warning("left out: %s", error)


def unfinished_runs(folder: Path) -> list[str]:
    """Relative paths of the run directories below a folder whose results are missing so far."""
    return [
        str(path.relative_to(folder))
        for path in _run_directories(folder)
        if not all(os.path.lexists(path / name) for name in (MANIFEST, RESULTS))
        and _job_of(path) in WITH_RESULTS
    ]


def name_runs(what: str, names: Sequence[str]) -> None:
    """Warn of runs that are not in the tables."""
    if names:
        further = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        named = ", ".join(names[:NAMED])
        log.warning("%d %s: %s%s", len(names), what, named, further)


class _Entry(BaseModel):
    """The entries that a report uses; others are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Named(_Entry):
    name: str | None = None
    label: str | None = None


class _Corruption(_Entry):
    kind: str = "none"
    severity: int = 0


class _Learning(_Entry):
    images: int | None = None


class _Zoo(_Entry):
    kind: str | None = None


class _Config(_Entry):
    seed: int = 0
    job: _Named = _Named()
    suite: _Named = _Named()
    backbone: _Named = _Named()
    zoo: _Zoo = _Zoo()
    corruption: _Corruption = _Corruption()
    learning: _Learning = _Learning()
    method: dict[str, dict[str, Any]] = {}


class _Manifest(_Entry):
    command: list[str] = []
    code: dict[str, Any] = {}
    hardware: dict[str, Any] = {}
    packages: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    data: dict[str, Any] = {}


def _learning_curves(run: FinishedRun) -> dict[str, pd.DataFrame]:
    versions: dict[str, list[tuple[int, str]]] = {}
    for name in run.files_below("learning_curves"):
        found = CURVE_FILE.fullmatch(name)
        if found and found[1] in run.results.methods:
            versions.setdefault(found[1], []).append((int(found[2]), name))
    curves = {}
    for method in run.results.methods:
        if method in versions:
            steps = pd.concat([_metrics(run, name) for _, name in sorted(versions[method])])
            # A run that was killed repeats the steps since its last checkpoint.
            steps = steps.drop_duplicates("step", keep="last").sort_values("step")
            curves[method] = steps[["step", *CURVES]]
    return curves


def _metrics(run: FinishedRun, name: str) -> pd.DataFrame:
    path = run.file(name)
    where = printable(str(run.path / name))
    if path is None or path.stat().st_size > LARGEST_TEXT:
        raise ReceivedError(f"{where} is too large to be a learning curve")
    try:
        frame = pd.read_csv(path, usecols=["step", *CURVES], encoding="utf-8")
        return frame.astype({"step": int, **dict.fromkeys(CURVES, float)})
    except (ValueError, OSError) as error:
        raise ReceivedError(
            f"{where} is no learning curve: {printable(first_line(error))}"
        ) from error


def _run_directories(folder: Path) -> Iterator[Path]:
    """Folders with a config, except those inside another one: loggers write such files too."""
    for config in sorted(folder.rglob(CONFIG)):
        outer = config.parent.relative_to(folder).parents
        if not any((folder / path / CONFIG).exists() for path in outer):
            yield config.parent


def _job_of(folder: Path) -> str | None:
    """The job of an unfinished run; ``None`` if its config does not name one."""
    try:
        config = received_yaml(folder, CONFIG)
    except ReceivedError as error:
        log.warning("left out: %s", error)
        return None
    job = config.get("job") if isinstance(config, dict) else None
    return job.get("name") if isinstance(job, dict) else None
