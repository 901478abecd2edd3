"""The faults. Each yields one trial after the other: did the same command finish, and how?"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.runs import JOBS, Sandbox, remains, send, wait

#: A clock that is set back or forward by an hour while the process runs.
CLOCK = """
import time
_real, _calls = time.time, [0]
def _stepped():
    _calls[0] += 1
    return _real() + (0, {step})[_calls[0] // 50 % 2]
time.time = _stepped
"""


@dataclass(frozen=True)
class Trial:
    """One disturbed run, and the same command after it.

    Attributes:
        noticed: the disturbed run said what was wrong as it should; ``True`` where it cannot.
        finished: the same command then ended with status 0.
        same: with the numbers of an undisturbed run, and neither more nor fewer of them.
        remains: half-written files that are left in the end.
    """

    noticed: bool
    finished: bool
    same: bool
    remains: int

    @property
    def survived(self) -> bool:
        return self.noticed and self.finished and self.same and not self.remains


def killed(sandbox: Sandbox, job: str, number: signal.Signals, trials: int) -> Iterator[Trial]:
    """A signal at random moments of a run."""
    moments = random.Random(f"{job} {number}")
    for trial in range(trials):
        folder, cache = sandbox.fresh(job, f"{job}-{number.name}-{trial}")
        process = sandbox.start(job, folder, cache)
        time.sleep(moments.uniform(0, sandbox.seconds[job]))
        send(process, number)
        yield _again(sandbox, job, folder, cache)


def full_disk(sandbox: Sandbox) -> Iterator[Trial]:
    """A disk that has room for less and less of a run."""
    for size in ("64k", "200k", "400k", "800k", "1200k"):
        with disk(sandbox.root / "disk", size) as folder:
            outcome = sandbox.finish("finetune", folder / "out", folder / "cache")
            noticed = outcome.status != 0 and "No space left" in last_line(outcome.errors)
            remount(folder, "size=64m")
            yield _again(sandbox, "finetune", folder / "out", folder / "cache", noticed)


def read_only(sandbox: Sandbox) -> Iterator[Trial]:
    """A place that nothing can be written to."""
    for job in JOBS:
        with disk(sandbox.root / "disk", "64m") as folder:
            remount(folder, "ro")
            outcome = sandbox.finish(job, folder / "out", folder / "cache")
            noticed = outcome.status != 0 and "Read-only" in last_line(outcome.errors)
            remount(folder, "rw")
            yield _again(sandbox, job, folder / "out", folder / "cache", noticed)


def flipped_bits(sandbox: Sandbox) -> Iterator[Trial]:
    """One flipped bit in every file of one kind of cache, kind by kind."""
    place = random.Random(0)
    for kind in sorted(path.name for path in sandbox.warm.iterdir() if path.is_dir()):
        folder, cache = sandbox.fresh("merge", f"bits-{kind}")
        if kind == "heads":
            shutil.rmtree(cache / "experts")  # which bring their heads: none would be read
        for file in (cache / kind).rglob("*"):
            if file.suffix in (".safetensors", ".npz", ".arrow"):
                content = bytearray(file.read_bytes())
                content[place.randrange(len(content))] ^= 1 << place.randrange(8)
                file.write_bytes(content)
        outcome = sandbox.finish("merge", folder, cache)
        yield Trial(
            noticed="is made anew" in outcome.errors,
            finished=outcome.status == 0,
            same=sandbox.same_numbers("merge", folder),
            remains=remains(folder, cache),
        )


def two_at_once(sandbox: Sandbox) -> Iterator[Trial]:
    """Two sweeps on one empty cache: into folders of their own, and into the same folder."""
    for name in ("own", "same"):
        first, cache = sandbox.fresh("finetune", f"two-{name}")
        second = first if name == "same" else first.with_name("second")
        processes = [sandbox.start("sweep", folder, cache) for folder in (first, second)]
        statuses = [wait(process).status for process in processes]
        same = all(sandbox.same_numbers("sweep", folder) for folder in (first, second))
        yield Trial(True, statuses == [0, 0], same, remains(first, second, cache))


def stepping_clock(sandbox: Sandbox) -> Iterator[Trial]:
    """A clock that jumps back and forth while the job runs."""
    for job in JOBS:
        for step in (-3600, 3600):
            folder, cache = sandbox.fresh(job, f"{job}-clock{step}")
            customised = folder.parent / "clock"
            customised.mkdir()
            (customised / "sitecustomize.py").write_text(CLOCK.format(step=step))
            places = os.pathsep.join([str(customised), os.environ.get("PYTHONPATH", "")])
            outcome = sandbox.finish(job, folder, cache, PYTHONPATH=places)
            same = sandbox.same_numbers(job, folder)
            yield Trial(True, outcome.status == 0, same, remains(folder, cache))


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; needs the right to mount one."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def last_line(text: str) -> str:
    """What stands on the terminal in the end."""
    return (text.strip().splitlines() or [""])[-1]


def _again(sandbox: Sandbox, job: str, folder: Path, cache: Path, noticed: bool = True) -> Trial:
    """The same command once more, undisturbed."""
    outcome = sandbox.finish(job, folder, cache)
    same = sandbox.same_numbers(job, folder)
    return Trial(noticed, outcome.status == 0, same, remains(folder, cache))
