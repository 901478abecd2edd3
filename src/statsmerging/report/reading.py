"""A finished run as a report reads it: all that is shown of it, checked before anything uses it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from statsmerging.errors import first_line, printable
from statsmerging.runs.directory import CONFIG, MANIFEST
from statsmerging.runs.finished import FinishedRun, read_finished_run, with_current_keys
from statsmerging.runs.layer_tables import read_coefficients, read_statistics
from statsmerging.runs.results import check_results
from statsmerging.store.received import LARGEST_TEXT, ReceivedError, check_record

#: What of a learning curve is drawn: column of ``metrics.csv`` → its name.
CURVES = {"loss": "loss", "learner_gradient_norm": "norm of the learner's gradient"}

#: The curves of a method, one file for each life of its run.
_CURVE = re.compile(r"learning_curves/([^/]+)/version_(\d{1,9})/metrics\.csv")


@dataclass(frozen=True)
class ReportedRun:
    """One run directory that holds its manifest and its results.

    Attributes:
        path: the directory.
        config: the resolved config of the run.
        manifest: content of ``manifest.json``.
        results: content of ``results.json``.
        coefficients: columns ``method``, ``layer``, ``task``, ``coefficient``; no rows where none
            were learned.
        statistics: columns ``layer``, ``task`` and one for each statistic, if there are any.
        curves: method → columns ``step`` and those of ``CURVES``; a step that was done twice
            counts once.
    """

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    results: dict[str, Any]
    coefficients: pd.DataFrame
    statistics: pd.DataFrame | None
    curves: Mapping[str, pd.DataFrame]


def read_run(folder: Path) -> ReportedRun:
    """Read a run directory.

    Raises:
        ReceivedError: a file is missing, damaged, a link, or of another kind.
    """
    run = read_finished_run(folder)
    check_results(run.results, folder)
    config = with_current_keys(run.config)
    check_record(_Config, config, folder / CONFIG)
    check_record(_Manifest, run.manifest, folder / MANIFEST)
    coefficients = run.file("coefficients.parquet")
    statistics = run.file("statistics.parquet")
    return ReportedRun(
        folder,
        config,
        run.manifest,
        run.results,
        pd.DataFrame() if coefficients is None else read_coefficients(coefficients),
        None if statistics is None else read_statistics(statistics),
        _curves(run),
    )


class _Entry(BaseModel):
    """What a report uses of an entry; there may be more."""

    model_config = ConfigDict(strict=True, extra="allow")


class _Named(_Entry):
    name: str | None = None
    label: str | None = None


class _Corruption(_Entry):
    kind: str = "none"
    severity: int = 0


class _Zoo(_Entry):
    kind: str | None = None


class _Learning(_Entry):
    images: int | None = None


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


def _curves(run: FinishedRun) -> dict[str, pd.DataFrame]:
    lives: dict[str, list[tuple[int, str]]] = {}
    for name in run.files_below("learning_curves"):
        found = _CURVE.fullmatch(name)
        if found and found[1] in run.results["methods"]:
            lives.setdefault(found[1], []).append((int(found[2]), name))
    return {
        method: _curve([_metrics(run, name) for _, name in sorted(lives[method])])
        for method in run.results["methods"]
        if method in lives
    }


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


def _curve(lives: list[pd.DataFrame]) -> pd.DataFrame:
    """Of all lives of the run: a run that was killed has done some steps twice."""
    steps = pd.concat(lives).drop_duplicates("step", keep="last").sort_values("step")
    return steps[["step", *CURVES]]
