"""A run directory: recognised by the hash of its config, never shared by two configs."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from statsmerging.errors import UserError, printable
from statsmerging.store.files import remove_partials, write_json, write_text
from statsmerging.store.hashing import SHORT, file_sha256, json_sha256
from statsmerging.store.locks import waiting_lock
from statsmerging.store.received import ReceivedError, received_yaml
from statsmerging.store.secrets import redacted

#: Keys that change where a run is shown or stored, but none of its numbers.
PRESENTATION = ("hydra", "cache", "logger", "rerun", "status", "delete_incomplete")

#: The folder that holds all run directories, below that of the command, by default.
OUTPUT_FOLDER = "outputs"

#: The three files of every finished run.
CONFIG, MANIFEST, RESULTS = "config.yaml", "manifest.json", "results.json"

#: What a process at work holds locked, what it tells, and the traceback of one that failed.
LOCK, LOG, ERROR = ".lock", "run.log", "error.txt"

#: The folder of Lightning's checkpoints.
CHECKPOINTS = "checkpoints"

#: Jobs whose run directories hold results when they are complete.
WITH_RESULTS = ("merge", "finetune", "distill", "evaluate", "check", "transfer")

#: Files and folders that a run writes and that do not change once it is complete.
OUTPUTS = (
    CONFIG,
    RESULTS,
    "coefficients.parquet",
    "statistics.parquet",
    "outcomes.safetensors",
    "merged.safetensors",
    "pretrained.safetensors",
    "experts",
    "learning_curves",
    CHECKPOINTS,
)

#: Everything that jobs and loggers open for writing in a run directory, except the rest of
#: ``wandb``, where W&B makes and replaces links of its own.
_WRITTEN = (
    *OUTPUTS,
    MANIFEST,
    LOG,
    LOCK,
    ERROR,
    "task_vectors.bin",
    "tensorboard",
    "wandb/cache",
    "wandb/data",
    "tables",
    "figures",
    "again",
    "comparison.json",
)

#: Sections that distinguish the config of a run from another ``config.yaml``.
_SECTIONS = {"job", "suite", "zoo"}

#: Files and folders that a refused run may have made.
_TRACES = {CONFIG, LOG, LOCK, "tensorboard", "wandb"}


def is_finished(path: Path) -> bool:
    """Whether a run directory holds a complete run."""
    return (path / MANIFEST).exists() and (path / RESULTS).exists()


def run_hash(config: dict[str, Any]) -> str:
    """Short hash of all config values that determine a run's results, credentials redacted."""
    return json_sha256(redacted(without_presentation(config)))[:SHORT]


def report_name(runs: Path) -> str:
    """The name of the folder of a report, from the folder or bundle that it is on.

    ``outputs/table1/embedded`` gives ``table1-embedded``; of other places the name has a hash of
    the whole path too, because their last names alone may be equal.
    """
    whole = Path(os.path.abspath(runs))  # noqa: PTH100, without following links
    here = Path.cwd() / OUTPUT_FOLDER
    if whole.is_relative_to(here):
        parts = whole.relative_to(here).parts or (OUTPUT_FOLDER,)
    else:
        parts = (whole.stem if whole.suffix == ".zip" else whole.name, json_sha256(str(whole))[:6])
    return re.sub(r"[^\w.+-]+", "_", "-".join(parts))


def without_presentation(config: dict[str, Any]) -> dict[str, Any]:
    """The sections of a config that determine a run's results."""
    return {key: value for key, value in config.items() if key not in PRESENTATION}


class RunDirectory:
    """The files of one run.

    Args:
        path: the directory (``hydra.run.dir``).
        config: the resolved config of the run.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.run_hash = run_hash(config)
        self._recorded = redacted(config)

    @property
    def config(self) -> Path:
        """The resolved config, without credentials."""
        return self.path / CONFIG

    @property
    def manifest(self) -> Path:
        """The record written when the run is complete."""
        return self.path / MANIFEST

    @property
    def results(self) -> Path:
        """Every number of the table."""
        return self.path / RESULTS

    @property
    def coefficients(self) -> Path:
        """Merging coefficients by layer and task."""
        return self.path / "coefficients.parquet"

    @property
    def statistics(self) -> Path:
        """Statistics by layer and task, before standardisation.

        They are those of whole task vectors if the learners used different densities.
        """
        return self.path / "statistics.parquet"

    @property
    def outcomes(self) -> Path:
        """Right or wrong, for every row of the table and every test image."""
        return self.path / "outcomes.safetensors"

    @property
    def merged(self) -> Path:
        """The merged backbone."""
        return self.path / "merged.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Lightning checkpoints, from which a killed run continues."""
        return self.path / CHECKPOINTS

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Lock the directory; other processes of this run wait, and then find it complete.

        Raises:
            UserError: the directory holds the results of another config, or a link through
                which something would be written elsewhere; nothing is overwritten.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        _refuse_ways_out(self.path)
        with waiting_lock(self.path / LOCK, f"running {self.path}"):
            self._refuse_another_config()
            remove_partials(self.path)
            if not self.finished:  # its manifest holds the hash of the config that lies there
                self._write_config()
            yield

    def note_error(self, text: str) -> None:
        """Keep a traceback in ``error.txt``, if the disk allows it."""
        with suppress(OSError):
            write_text(self._error, redacted(text))

    def forget_error(self) -> None:
        """Remove the traceback of an earlier try."""
        self._error.unlink(missing_ok=True)

    @property
    def _error(self) -> Path:
        return self.path / ERROR

    def _refuse_another_config(self) -> None:
        if not self.config.exists():
            return
        try:
            held = received_yaml(self.path, CONFIG)
        except ReceivedError as error:
            raise UserError(f"{error}: choose another hydra.run.dir") from error
        sections = _SECTIONS & self._recorded.keys()
        if not isinstance(held, dict) or not sections <= held.keys():
            raise UserError(
                f"{printable(str(self.config))} was not written by a run; nothing was overwritten: "
                "choose another hydra.run.dir"
            )
        if self._holds_work() and run_hash(held) != self.run_hash:
            raise UserError(
                f"{self.path} already holds the results of another config (hash {run_hash(held)}, "
                f"this run is {self.run_hash}): choose another hydra.run.dir"
            )

    def check_own(self) -> None:
        """Refuse a directory whose config is not this run's.

        Raises:
            UserError: says what it is instead.
        """
        if self.path.is_symlink():
            raise UserError("it is a link")
        held = received_yaml(self.path, CONFIG)
        try:
            own = isinstance(held, dict) and run_hash(held) == self.run_hash
        except TypeError:  # keys or values that JSON does not have
            own = False
        if not own:
            raise UserError(f"its {CONFIG} is not this run's")

    def _holds_work(self) -> bool:
        """Whether the directory holds results or checkpoints; a refused run leaves neither."""
        made = (self.results, self.manifest, self.coefficients, self.merged, self.checkpoints)
        return any(path.exists() for path in made)

    @property
    def finished(self) -> bool:
        """Whether the run is complete: the manifest is written last."""
        return is_finished(self.path)

    def forget_checkpoints(self) -> None:
        """Make the next training start from its beginning."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def finish(self, results: dict[str, Any], manifest: dict[str, Any] | None) -> None:
        """Write the results, then the manifest that marks the run as complete, if it is.

        The manifest's entry ``outputs`` is the sha256 of every file that the run wrote, its entry
        ``sha256`` that of all its other entries.
        """
        self.manifest.unlink(missing_ok=True)
        self._write_config()
        write_json(self.results, results)
        if manifest is not None:
            record = {**manifest, "outputs": self._outputs()}
            write_json(self.manifest, {**record, "sha256": json_sha256(record)})

    def _write_config(self) -> None:
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(self._recorded)))

    def _outputs(self) -> dict[str, str]:
        """Name of each of the run's files, from here → its sha256."""
        paths = (file for name in OUTPUTS for file in self.path.glob(f"{name}/**/*"))
        files = [*(self.path / name for name in OUTPUTS), *paths]
        return {
            file.relative_to(self.path).as_posix(): file_sha256(file)
            for file in sorted(files)
            if file.is_file()
        }


def _refuse_ways_out(directory: Path) -> None:
    """Refuse a received directory whose links would lead our writing to other places."""
    for name in _WRITTEN:
        path = directory / name
        steps = [directory / part for part in reversed(Path(name).parents)][1:]
        for entry in (*steps, path, *path.rglob("*")):
            try:
                mode = entry.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
                raise UserError(
                    f"{printable(str(entry))} is {kind}, and nothing is written through it: remove "
                    "it, or choose another hydra.run.dir"
                )


def remove_traces(path: Path, before: Set[str] | None) -> None:
    """Remove the files of a refused run, unless it made more than a config and logs.

    Args:
        path: the directory.
        before: names in the directory before the run; they stay. ``None`` if there was no
            directory: it is removed too.
    """
    if not path.is_dir():
        return
    made = [entry for entry in path.iterdir() if entry.name not in (before or ())]
    if {entry.name for entry in made} <= _TRACES:
        for entry in made:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if before is None:
            path.rmdir()
