"""What became of a run: told from its directory and the journals, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from statsmerging.learning.trainer import CheckedCheckpoints
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.journal import JOURNALS, Entry, JobState, Journal, last_tries
from statsmerging.runs.state import RunState, state_of

CONFIG: dict[str, Any] = {"job": {"name": "merge"}, "suite": {}, "zoo": {}, "seed": 0}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run", CONFIG)


def begin(run: RunDirectory, at: float) -> None:
    """A try that did not end, because its process was killed."""
    with run.exclusive():
        os.utime(run.config, (at, at))


def note(run: RunDirectory, state: JobState, at: float, **entry: Any) -> None:
    """What a job of a sweep writes in its journal."""
    sweep = run.path.parent
    journal = Journal(sweep / JOURNALS / f"sweep-{at}")
    journal.write(Entry(0, ("seed=0",), str(run.path), state, **entry))
    os.utime(journal.folder / "00000.json", (at, at))


def look(run: RunDirectory) -> RunState:
    return state_of(run.path, last_tries(run.path.parent).get(str(run.path)))


def checkpoint(run: RunDirectory, name: str, step: int) -> Path:
    path = run.checkpoints / f"{name}-0123456789abcdef.ckpt"
    CheckedCheckpoints().save_checkpoint({"epoch": 1, "global_step": step, "loops": {}}, path)
    return path


def test_a_run_from_its_beginning_to_its_end(run: RunDirectory) -> None:
    assert look(run) == RunState("missing")
    with run.exclusive():
        assert look(run).outcome == "running"
        checkpoint(run, "free", 300)
        checkpoint(run, "stats_merging", 40)
        assert look(run).learned == "step 40 of stats_merging"
    interrupted = look(run)
    assert (interrupted.outcome, interrupted.learned) == ("interrupted", "step 40 of stats_merging")
    with run.exclusive():
        run.finish({}, {"run_hash": run.run_hash})
        assert look(run).outcome == "running"  # it does not only show its results
    assert look(run).outcome == "finished"


def test_a_damaged_checkpoint_counts_as_the_one_before(run: RunDirectory) -> None:
    begin(run, 100)
    checkpoint(run, "ties", 20)
    newest = checkpoint(run, "ties", 40)
    newest.write_bytes(newest.read_bytes()[:100])
    assert look(run).learned == "step 20 of ties"


def test_a_run_that_failed_names_its_error_and_where_to_read_more(run: RunDirectory) -> None:
    begin(run, 100)
    run.note_error("Traceback (most recent call last):\n  File x\nValueError: too many\n")
    error = run.path / "error.txt"
    os.utime(error, (200, 200))
    assert look(run) == RunState("failed", "ValueError: too many", error, changed=200)
    begin(run, 300)  # tried again, and killed
    assert look(run).outcome == "interrupted"


def test_the_last_try_counts(run: RunDirectory) -> None:
    note(run, "failed", 200, message="suite.root: no such folder", refused=True)
    assert look(run) == RunState("failed", "suite.root: no such folder", changed=200)
    begin(run, 100)  # a try before that
    assert look(run).reason == "suite.root: no such folder"
    begin(run, 300)  # a try after that, in no sweep
    assert look(run).outcome == "interrupted"
    note(run, "running", 299)
    assert look(run).outcome == "interrupted"  # killed
    note(run, "failed", 400, message="out of memory")
    assert look(run).reason == "out of memory"


def test_a_failed_run_of_which_nothing_is_left_is_missing(run: RunDirectory) -> None:
    note(run, "failed", 200, message="out of memory")
    assert look(run) == RunState("missing")


def test_results_without_a_manifest_are_no_success(run: RunDirectory) -> None:
    with run.exclusive():
        run.finish({}, None)
    assert look(run).outcome == "failed"


def test_a_received_journal_is_data(run: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    note(run, "failed", 200, message="out of memory", refused=True)
    folder = run.path.parent / JOURNALS / "received"
    folder.mkdir()
    (folder / "00000.json").write_text('{"number": 0, "overrides": [], "directory": 7}')
    (folder / "00001.json").symlink_to("/etc/hostname")
    assert look(run).reason == "out of memory"
    assert len(caplog.messages) == 2
    assert all(line.startswith("left out: ") for line in caplog.messages)


def test_looking_changes_nothing(run: RunDirectory) -> None:
    begin(run, 100)
    checkpoint(run, "ties", 20)
    note(run, "stopped", 50)

    def tree() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in run.path.parent.rglob("*")}

    before = tree()
    assert look(run).outcome == "interrupted"
    assert tree() == before
