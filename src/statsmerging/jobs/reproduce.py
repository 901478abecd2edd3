"""``job=reproduce``: run a finished run again from its record and compare every number."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statsmerging.data.hub import closed_hub
from statsmerging.errors import IncompleteError, MissingFilesError, UserError, printable
from statsmerging.runs.comparison import (
    Difference,
    circumstances,
    coefficient_differences,
    result_differences,
    same_bits_promised,
)
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.results import read_results
from statsmerging.store.files import read_json, write_json

if TYPE_CHECKING:
    from statsmerging.app.config import Config
    from statsmerging.app.run import Run


log = logging.getLogger(__name__)

#: Differences shown on the terminal; the file has all of them.
SHOWN = 20


def reproduce(run: Run) -> None:
    """Repeat ``job.run`` in ``again/`` of this run's directory, and write ``comparison.json``.

    Images and experts come from the cache of this command: with ``cache=EMPTY_FOLDER`` they are
    made again too. Files that the run's config names are read from this machine; plugins and
    downloads must be allowed by this command.

    Raises:
        UserError: no finished run, a record that was changed, or a config that asks for more.
        IncompleteError: numbers that are not the same.
    """
    job = run.config.job
    if job.run is None:
        raise UserError("job.run: a run directory is needed")
    path, tolerance = job.run, job.tolerance
    finished = read_finished_run(path)
    received, values = run.received_config(finished)
    _warn_of_changed_files(finished.manifest.get("files", {}))
    again = run.directory.path / "again"
    report = run.directory.path / "comparison.json"
    if report.exists():  # the last try ended with a comparison: this one starts from the beginning
        report.unlink()
        shutil.rmtree(again)
    repeated = RunDirectory(again, values)
    _repeat(run, received, repeated)
    after = read_json(repeated.manifest)
    before = finished.manifest
    changed = circumstances(before, after)
    numbers = [
        *result_differences(finished.results, read_results(again)),
        *coefficient_differences(finished.file(repeated.coefficients.name), repeated.coefficients),
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


def _repeat(run: Run, config: Config, directory: RunDirectory) -> None:
    """Run the job; nothing that a received config names is downloaded unless the user allows it."""
    if run.config.job.network:
        run.repeat(config, directory)
        return
    try:
        with closed_hub():
            run.repeat(config, directory)
    except MissingFilesError as error:
        missing = ", ".join(error.files)
        raise UserError(f"missing: {missing}; job.network=true downloads them") from error


def _warn_of_changed_files(files: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn of weight files that are missing or of another size, before anything is computed.

    They are not opened: a received manifest may name any file. Files that the run reads are
    compared by their content at the end.
    """
    for record in files.values():
        file = Path(record["path"])
        if not file.is_file():
            log.warning("%s is gone", printable(str(file)))
        elif file.stat().st_size != record["bytes"]:
            log.warning("%s is not the file it was", printable(str(file)))


def _within(item: Difference, tolerance: float) -> bool:
    """Coefficients may differ if accuracies agree: many coefficients give the same model."""
    of_coefficients = item.name.startswith("coefficients.") or ".movement." in item.name
    return of_coefficients or item.size <= tolerance


def _show(title: str, found: list[Difference]) -> None:
    for item in found[:SHOWN]:
        log.warning("%s: %s", title, item)
    if len(found) > SHOWN:
        log.warning("%s: and %d more", title, len(found) - SHOWN)
