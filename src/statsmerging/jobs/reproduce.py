"""``job=reproduce``: run a finished run again from its record and compare every number."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any, cast

import pandas as pd
from omegaconf import OmegaConf

from statsmerging.jobs.command_line import run_checked
from statsmerging.jobs.schema import Config, parse_config
from statsmerging.records.comparison import (
    Difference,
    circumstances,
    differences,
    same_bits_promised,
)
from statsmerging.records.errors import IncompleteError, UserError
from statsmerging.records.files import read_json, write_json
from statsmerging.records.inputs import file_records
from statsmerging.records.run_directory import RunDirectory, run_hash

log = logging.getLogger(__name__)

#: Differences shown on the terminal; the file has all of them.
SHOWN = 20


def run(config: Config, directory: RunDirectory) -> None:
    """Repeat ``job.run`` in ``again/`` of this run's directory; ``comparison.json`` says the rest.

    Images and experts come from the cache of this command: with ``cache=EMPTY_FOLDER`` they, too,
    are made again.

    Raises:
        UserError: no finished run, or a record that was changed.
        IncompleteError: numbers that are not the same.
    """
    assert config.job.run is not None
    path, tolerance = config.job.run, config.job.tolerance
    values, before = _read(path)
    _say_changed_files(before)
    again = directory.path / "again"
    report = directory.path / "comparison.json"
    if report.exists():  # it was compared: this is another try, not the rest of the last one
        report.unlink()
        shutil.rmtree(again)
    ours = {"cache": config.cache, "logger": config.logger.model_dump(), "rerun": False}
    values = {**values, **ours}
    repeated = RunDirectory(again, values)
    run_checked(parse_config(values), repeated)

    after = read_json(repeated.manifest)
    changed = circumstances(before, after)
    results = differences(read_json(path / "results.json"), read_json(repeated.results))
    numbers = [
        *(item for item in results if item.of_numbers),
        *_coefficient_differences(path / repeated.coefficients.name, repeated.coefficients),
    ]
    exact = same_bits_promised(before, after)
    reproduced = not numbers if exact else all(_within(item, tolerance) for item in numbers)
    write_json(
        report,
        {
            "run": str(path.absolute()),
            "reproduced": reproduced,
            "same_bits_promised": exact,
            "tolerance": 0.0 if exact else tolerance,
            "circumstances": [vars(item) for item in changed],
            "numbers": [vars(item) for item in numbers],
        },
    )
    _show("different here", changed)
    _show("not the same number", numbers)
    log.info("comparison: %s", report)
    if not reproduced:
        limit = "none may" if exact else f"accuracies may by {tolerance:g}"
        raise IncompleteError(f"{path} was not reproduced: {len(numbers)} numbers differ, {limit}")
    how = "every number is the same" if not numbers else f"all numbers within {tolerance:g}"
    log.info("reproduced: %s", how)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Resolved config and manifest of a finished run."""
    missing = [
        name
        for name in ("config.yaml", "manifest.json", "results.json")
        if not (path / name).is_file()
    ]
    if missing:
        raise UserError(f"job.run={path} is no finished run: it has no {missing[0]}")
    values = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(path / "config.yaml")))
    manifest = read_json(path / "manifest.json")
    if run_hash(values) != manifest["run_hash"]:
        raise UserError(
            f"{path / 'config.yaml'} was changed since: its hash is {run_hash(values)}, the "
            f"manifest says {manifest['run_hash']}"
        )
    return values, manifest


def _say_changed_files(manifest: dict[str, Any]) -> None:
    """Point out files of weights that are gone or changed, before anything is computed."""
    files = {name: Path(record["path"]) for name, record in manifest["files"].items()}
    there = file_records({name: file for name, file in files.items() if file.is_file()})
    for name, file in files.items():
        if name not in there:
            log.warning("%s is gone", file)
        elif there[name]["sha256"] != manifest["files"][name]["sha256"]:
            log.warning("%s is not the file it was", file)


def _coefficient_differences(before: Path, after: Path) -> list[Difference]:
    """Largest difference of the coefficients, method by method; none where all are the same."""
    tables = [_coefficients(before), _coefficients(after)]
    if tables[0].equals(tables[1]):
        return []
    apart = tables[0].sub(tables[1]).abs().fillna(math.inf).groupby("method").max()
    return [
        Difference(f"coefficients.{method}, largest difference", 0.0, float(value))
        for method, value in apart.items()
        if value > 0
    ]


def _coefficients(path: Path) -> pd.Series[float]:
    """Coefficients by method, layer and task; empty where none were learned."""
    if not path.exists():
        return pd.Series(dtype=float)
    return pd.read_parquet(path).set_index(["method", "layer", "task"])["coefficient"]


def _within(item: Difference, tolerance: float) -> bool:
    """Coefficients may differ where accuracies agree: many give the same model."""
    return item.name.startswith("coefficients.") or item.size <= tolerance


def _show(title: str, found: list[Difference]) -> None:
    for item in found[:SHOWN]:
        log.warning("%s: %s", title, item)
    if len(found) > SHOWN:
        log.warning("%s: and %d more", title, len(found) - SHOWN)
