"""A sweep over the methods of Python files: checked before it, beside all others after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from statsmerging.app.config import JobSettings
from statsmerging.app.mistakes import MISTAKE
from statsmerging.app.plugins import load_plugins, methods_of, plugin_records
from statsmerging.app.sweep import SweepJournal
from statsmerging.app.terminal import complain
from statsmerging.errors import UserError


class CheckAMethod(Callback):
    """Refuses a faulty file, and compares its methods; ``hydra.callbacks`` names this class.

    The files of the comparison are written to a folder of each method, below that of the sweep.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once by the driver, before any job."""
        try:
            names = _checked_methods(_files(config))
            if not config.rerun:
                _refuse_other_code(config, names)
        except UserError as error:
            # Hydra would turn it into a warning, and go on.
            complain(f"error: {error}")
            raise SystemExit(MISTAKE) from error

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Called once by the driver, after all jobs."""
        from statsmerging.jobs.compare import compare_runs
        from statsmerging.report.sweep_summary import SweepSummary

        assert SweepJournal.current is not None
        runs = Path(config.hydra.sweep.dir)
        names = [method.name for method in methods_of(_files(config))]
        try:
            if not SweepSummary.of(SweepJournal.current).complete:
                raise UserError("some jobs are not done")
            _refuse_other_code(config, names)
            for name in names:
                job = JobSettings(name="compare", runs=runs, against=name)
                compare_runs(job, runs / "comparisons" / name)
        except UserError as error:
            complain(f"error: no comparison: {error}")


def _files(config: DictConfig) -> list[Path]:
    return [Path(file).expanduser() for file in config.plugins]


def _checked_methods(files: list[Path]) -> list[str]:
    """Names of the methods of the files, which keep what holds for every method.

    Raises:
        UserError: a file that cannot be imported or has no method, or a method that breaks a rule.
    """
    from statsmerging.merging.errors import MergingError
    from statsmerging.merging.methods import check_method

    for file in files:
        if not file.is_file():
            raise UserError(f"plugins: {file}: no such file")
    load_plugins(files)
    found = methods_of(files)
    if not found:
        raise UserError(
            "plugins: a file with a method is needed, a class with `name` and `title` "
            "(docs/adding_a_method.md), e.g. plugins=[median.py]"
        )
    for method in found:
        try:
            check_method(method())
        except MergingError as error:
            raise UserError(f"plugins: {error}") from error
        except TypeError as error:  # a class without a function that it needs
            raise UserError(f"plugins: method {method.name}: {error}") from error
    return [method.name for method in found]


def _refuse_other_code(config: DictConfig, names: list[str]) -> None:
    """Refuse runs in the folder of the sweep that an earlier version of a file has made.

    Raises:
        UserError: names the file and such a run.
    """
    found = list(_runs_of_other_code(Path(config.hydra.sweep.dir), _files(config), names))
    if found:
        file, run = found[0]
        raise UserError(
            f"{file} was changed since it gave {len(found)} run(s) there, among them {run}: delete "
            "them, or write elsewhere, hydra.sweep.dir=DIR"
        )


def _runs_of_other_code(
    runs: Path, files: list[Path], names: list[str]
) -> Iterator[tuple[str, Path]]:
    from statsmerging.report.runs import finished_runs

    records = plugin_records(files)
    for run in finished_runs(runs) if runs.is_dir() else ():
        made = run.manifest.get("plugins")
        if not isinstance(made, dict) or not run.results.methods.keys() & set(names):
            continue
        for name, record in records.items():
            recorded = made.get(name)
            if isinstance(recorded, dict) and recorded.get("sha256") != record["sha256"]:
                yield name, run.path
