"""``job=reproduce``: run a finished run again from its record and compare every number."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from statsmerging.data.hub import closed_hub
from statsmerging.errors import IncompleteError, MissingFilesError, UserError, printable
from statsmerging.runs.comparison import Difference, circumstances, differences, same_bits_promised
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.layer_tables import read_coefficients
from statsmerging.runs.results import RunResults, read_results
from statsmerging.store.files import read_json, write_json

if TYPE_CHECKING:
    from statsmerging.app.setup import Run


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
    with nullcontext() if job.network else closed_hub():
        try:
            repeated = run.repeat(received, RunDirectory(again, values))
        except MissingFilesError as error:
            if job.network:
                raise
            raise UserError(
                f"missing: {', '.join(error.files)}; job.network=true downloads them"
            ) from error

    after = read_json(repeated.manifest)
    before = finished.manifest
    changed = circumstances(before, after)
    results = differences(
        finished.results.as_json(),
        _without_later_parameters(read_results(again), finished.results).as_json(),
    )
    numbers = [
        *(item for item in results if item.of_numbers),
        *_coefficient_differences(finished.file(repeated.coefficients.name), repeated.coefficients),
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


def _without_later_parameters(after: RunResults, before: RunResults) -> RunResults:
    """The results without the parameters of methods that an older version did not record."""
    rows = {}
    for method, row in after.methods.items():
        recorded = before.methods[method].parameters if method in before.methods else {}
        kept = {key: value for key, value in row.parameters.items() if key in recorded}
        rows[method] = row.model_copy(update={"parameters": kept}) if recorded else row
    return after.model_copy(update={"methods": rows})


def _coefficient_differences(before: Path | None, after: Path) -> list[Difference]:
    """Largest difference of the coefficients of each method; empty if all are the same."""
    tables = [_coefficients(before), _coefficients(after)]
    if tables[0].equals(tables[1]):
        return []
    apart = tables[0].sub(tables[1]).abs().fillna(math.inf).groupby("method").max()
    return [
        Difference(f"coefficients.{method}, largest difference", 0.0, float(value))
        for method, value in apart.items()
        if value > 0
    ]


def _coefficients(path: Path | None) -> pd.Series[float]:
    """Coefficients by method, layer and task; empty if none were learned."""
    if path is None or not path.exists():
        return pd.Series(dtype=float)
    return read_coefficients(path).set_index(["method", "layer", "task"])["coefficient"]


def _within(item: Difference, tolerance: float) -> bool:
    """Coefficients may differ if accuracies agree: many coefficients give the same model."""
    return item.name.startswith("coefficients.") or item.size <= tolerance


def _show(title: str, found: list[Difference]) -> None:
    for item in found[:SHOWN]:
        log.warning("%s: %s", title, item)
    if len(found) > SHOWN:
        log.warning("%s: and %d more", title, len(found) - SHOWN)
