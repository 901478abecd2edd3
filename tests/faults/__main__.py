"""Disturb real runs and print what they survived.

    python -m tests.faults --kills 20

`kill -9` at random moments of every job, SIGTERM and SIGUSR1, a full disk and a read-only one
(they need the right to mount), flipped bits in every kind of cache and in checkpoints, two sweeps
at once, a clock that jumps. After each the same command must finish with the numbers of an
undisturbed run.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults import scenarios
from tests.faults.runs import JOBS, Sandbox
from tests.faults.scenarios import Trial


def main() -> None:
    options = parse()
    rows: list[tuple[str, list[Trial]]] = []
    with tempfile.TemporaryDirectory() as root:
        sandbox = Sandbox(Path(root))
        print({job: round(value, 1) for job, value in sandbox.seconds.items()}, "s undisturbed")
        for name, trials in faults(sandbox, options.kills):
            if options.only not in name:
                continue
            rows.append((name, list(trials)))
            print(
                f"{name}: {sum(t.survived for t in rows[-1][1])} of {len(rows[-1][1])}", flush=True
            )
    Console(width=120).print(table(rows))
    sys.exit(not all(trial.survived for _, trials in rows for trial in trials))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="random moments of each job")
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    return parser.parse_args()


def faults(sandbox: Sandbox, kills: int) -> Iterator[tuple[str, Iterator[Trial]]]:
    """Name of each fault, and its trials."""
    for job in JOBS:
        yield f"kill -9, {job}", scenarios.killed(sandbox, job, signal.SIGKILL, kills)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        yield (
            f"{number.name}, merge",
            scenarios.killed(sandbox, "merge", number, max(1, kills // 4)),
        )
    yield "a flipped bit in every file of a cache", scenarios.flipped_bits(sandbox)
    yield (
        "a flipped bit in a checkpoint",
        scenarios.flipped_bits_of_checkpoints(sandbox, kills),
    )
    yield "two sweeps at once", scenarios.two_at_once(sandbox)
    yield "a clock that jumps by an hour", scenarios.stepping_clock(sandbox)
    if os.geteuid() == 0:
        yield "a full disk", scenarios.full_disk(sandbox)
        yield "a disk that fills while a run learns", scenarios.full_disk_while_learning(sandbox)
        yield "a complete cache that nobody may write to", scenarios.cache_of_another(sandbox)
        yield "a read-only disk", scenarios.read_only(sandbox)


def table(rows: list[tuple[str, list[Trial]]]) -> Table:
    """One row per fault; every column but the last must reach the number of trials."""
    result = Table("fault", "trials", "said so", "finished", "same numbers", "half-written files")
    for name, trials in rows:
        counts = [
            len(trials),
            sum(trial.noticed for trial in trials),
            sum(trial.finished for trial in trials),
            sum(trial.same for trial in trials),
            sum(trial.remains for trial in trials),
        ]
        result.add_row(name, *map(str, counts))
    return result


if __name__ == "__main__":
    main()
