"""``delete_incomplete=true``: delete what failed and interrupted runs left, after a question."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from statsmerging.app.planned_runs import PlannedRun
from statsmerging.app.terminal import complain
from statsmerging.errors import UserError
from statsmerging.progress import agreed, wide_console
from statsmerging.report.sweep_status import RunStatus, SweepStatus
from statsmerging.runs.leftovers import Leftovers, delete_leftovers, leftovers
from statsmerging.store.locks import HeldError


def delete_incomplete(
    planned: Sequence[PlannedRun], states: Sequence[RunStatus], *, asks: bool
) -> None:
    """Delete the files that the failed and interrupted ones of some runs have written.

    Finished and running runs stay, and so does every file that no run of ours writes.

    Args:
        states: one for each of the runs.
        asks: whether the user is asked first.

    Raises:
        UserError: there is nobody to ask.
    """
    if asks and not sys.stdin.isatty():
        raise UserError(
            "delete_incomplete=true asks first, and there is no terminal: status=true lists the "
            "runs, delete_incomplete=confirmed deletes what the incomplete ones left, unasked"
        )
    incomplete = {
        run.number: run
        for run, status in zip(planned, states, strict=True)
        if status.state.outcome in ("failed", "interrupted") and run.directory.config.exists()
    }
    found = dict(_found(incomplete.values()))
    if not found:
        print("nothing to delete: no run of this command is incomplete and has left files")
        return
    wide_console().print(SweepStatus(states, time.time()).table(found))
    files = sum(len(left.ours) for left in found.values())
    size = sum(left.bytes for left in found.values())
    noun = "run" if len(found) == 1 else "runs"
    if asks and not agreed(f"delete {files} files of {len(found)} {noun}, {size / 1e6:.1f} MB?"):
        print("nothing was deleted")
        return
    deleted = [number for number in found if _is_deleted(incomplete[number])]
    print(f"{len(deleted)} of {len(found)} {noun} deleted")


def _found(runs: Iterable[PlannedRun]) -> Iterator[tuple[int, Leftovers]]:
    """Number of each run → what it has left; a line names each directory that is not its own."""
    for run in runs:
        try:
            yield run.number, leftovers(run.directory)
        except UserError as error:
            complain(f"left {run.directory.path}: {error}")


def _is_deleted(run: PlannedRun) -> bool:
    """Delete what a run has left; a line says what stays, and why."""
    path = run.directory.path
    try:
        found = delete_leftovers(run.directory)
    except HeldError:
        complain(f"left {path}: it is running by now")
        return False
    except (UserError, OSError) as error:
        complain(f"left {path}: {error}")
        return False
    for file in found.foreign:
        complain(f"left {file}: no run writes such a file")
    return True
