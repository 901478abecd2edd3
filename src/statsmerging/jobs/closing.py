"""The end of every job: results and manifest on disk, the table on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench
from statsmerging.records.files import read_json
from statsmerging.records.manifest import code_version, manifest
from statsmerging.records.results import MethodResult, results_json
from statsmerging.records.run_directory import RunDirectory
from statsmerging.report.table import accuracy_table

log = logging.getLogger(__name__)

#: Columns of a table that goes to a file or a pipe, where nothing wraps it.
FILE_WIDTH = 200


def show_finished(config: Config, directory: RunDirectory) -> bool:
    """Show the table of a run that is complete already; ``rerun=true`` runs it again."""
    if not directory.finished or config.rerun:
        return False
    log.info("this run is complete already (rerun=true runs it again): %s", directory.path)
    if read_json(directory.manifest)["code"] != code_version():
        log.warning("it was made by another version of the code")
    _show(read_json(directory.results))
    return True


def finish(
    config: Config,
    directory: RunDirectory,
    bench: Workbench,
    methods: Mapping[str, MethodResult],
    **facts: Any,
) -> None:
    """Write ``results.json`` and ``manifest.json``, then show the table.

    Args:
        facts: further numbers that belong into the results.
    """
    stamps: list[str] = []
    results = results_json(
        methods,
        run_hash=directory.run_hash,
        suite=config.suite.name,
        backbone=config.backbone.label,
        granularity=config.granularity,
        seed=config.seed,
        stamps=stamps,
        **facts,
    )
    record = manifest(
        config.model_dump(mode="json"),
        run_hash=directory.run_hash,
        weights=bench.zoo.hashes(),
        data=bench.images.fingerprints(),
        stamps=stamps,
    )
    directory.finish(results, record)
    _show(results)
    log.info("results: %s", directory.path)


def _show(results: dict[str, Any]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_WIDTH)
    console.print(accuracy_table(results))
