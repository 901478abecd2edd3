"""The end of every job: results and manifest on disk, the table on the terminal, all logged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from statsmerging.jobs.finished import show_table
from statsmerging.jobs.loggers.run_log import RunLog
from statsmerging.jobs.plugins import plugin_records
from statsmerging.jobs.schema import Config
from statsmerging.jobs.stamps import stamps
from statsmerging.jobs.workbench import Workbench
from statsmerging.records.inputs import file_records, file_stamps
from statsmerging.records.manifest import manifest
from statsmerging.records.run_directory import RunDirectory
from statsmerging.runs.results import MethodResult, run_results

log = logging.getLogger(__name__)


def finish(
    config: Config,
    directory: RunDirectory,
    run_log: RunLog,
    bench: Workbench,
    methods: Mapping[str, MethodResult],
    *,
    warnings: Sequence[str] = (),
    complete: bool = True,
    **facts: Any,
) -> None:
    """Write ``results.json`` and ``manifest.json``, then show and log the table.

    Args:
        warnings: what looks wrong, a line each, for the log and the results.
        complete: ``False`` where something failed: there is no manifest then, so that the same
            command tries again.
        facts: further numbers that belong into the results.
    """
    for line in warnings:
        log.warning("%s", line)
    departures = stamps(config)
    results = run_results(
        methods,
        run_hash=directory.run_hash,
        suite=config.suite.name,
        backbone=config.backbone.label,
        corruption=config.corruption.label,
        seed=config.seed,
        stamps=departures,
        **_distilled(bench, methods),
        **facts,
        warnings=list(warnings),
    )
    record = manifest(
        config.model_dump(mode="json"),
        run_hash=directory.run_hash,
        weights=bench.weight_hashes,
        files=file_records(bench.weight_files),
        plugins=plugin_records(config.plugins),
        data=bench.images.fingerprints(),
        preprocessing=bench.preprocessing,
        inputs=file_stamps(config.input_paths),
        stamps=departures,
    )
    directory.finish(results.as_json(), record if complete else None)
    show_table(results)
    run_log.results(results)
    log.info("results: %s", directory.path)


def _distilled(bench: Workbench, methods: Mapping[str, MethodResult]) -> dict[str, Any]:
    """The entry ``distilled``: what became of the experts of other architectures."""
    if not bench.others:
        return {}
    teachers, students = methods["before_distillation"].seen, methods["individual"].seen
    return {
        "distilled": {
            task: {
                "architecture": other.architecture,
                "teacher": teachers[task].accuracy,
                "student": students[task].accuracy,
                "images": students[task].images,
                "unlabeled_images": other.learned_from,
            }
            for task, other in bench.others.items()
        }
    }
