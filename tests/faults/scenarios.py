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

from tests.faults.runs import JOBS, WARM, Sandbox, remains, send, wait

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


def full_disk_while_learning(sandbox: Sandbox) -> Iterator[Trial]:
    """A disk for the run alone, which fills at its config, a checkpoint or the merged weights."""
    for size in ("8k", "16k", "24k", "32k", "48k", "64k", "96k"):
        _, cache = sandbox.fresh("merge", f"disk-{size}")
        with disk(sandbox.root / "disk", size) as folder:
            outcome = sandbox.finish("merge", folder / "out", cache)
            noticed = outcome.status != 0 and "No space left" in last_line(outcome.errors)
            remount(folder, "size=64m")
            yield _again(sandbox, "merge", folder / "out", cache, noticed)


def cache_of_another(sandbox: Sandbox) -> Iterator[Trial]:
    """A complete cache on a disk that nobody may write to."""
    with disk(sandbox.root / "disk", "64m") as folder:
        shutil.copytree(sandbox.warm, folder / "cache")
        remount(folder, "ro")
        for job in WARM:
            out, _ = sandbox.fresh(job, f"{job}-foreign-cache")
            outcome = sandbox.finish(job, out, folder / "cache")
            yield Trial(True, outcome.status == 0, sandbox.same_numbers(job, out), remains(out))
        remount(folder, "rw")


def flipped_bits(sandbox: Sandbox) -> Iterator[Trial]:
    """One flipped bit in every entry of one kind of cache, or in every checksum, kind by kind."""
    place = random.Random(0)
    for kind in sorted(path.name for path in sandbox.warm.iterdir() if path.is_dir()):
        for suffixes in ((".safetensors", ".npz"), (".xxh128",)):
            folder, cache = sandbox.fresh("merge", f"bits-{kind}{suffixes[0]}")
            if kind == "heads":
                shutil.rmtree(cache / "experts")  # which bring their heads: none would be read
            for file in (cache / kind).rglob("*"):
                if file.suffix in suffixes:
                    _flip(file, place)
            outcome = sandbox.finish("merge", folder, cache)
            yield Trial(
                noticed="is made anew" in outcome.errors,
                finished=outcome.status == 0,
                same=sandbox.same_numbers("merge", folder),
                remains=remains(folder, cache),
            )


def flipped_bits_of_checkpoints(sandbox: Sandbox, trials: int) -> Iterator[Trial]:
    """A run that was killed after its learning, one bit of its last checkpoint flipped since."""
    place = random.Random(1)
    folder, cache = sandbox.fresh("merge", "bits-checkpoint")
    sandbox.finish("merge", folder, cache)
    for _ in range(trials):
        for name in ("manifest.json", "results.json", "coefficients.parquet"):
            (folder / "run" / name).unlink()
        checkpoint = max(
            (folder / "run").glob("checkpoints/*.ckpt"), key=lambda file: file.stat().st_mtime_ns
        )
        _flip(checkpoint, place)
        outcome = sandbox.finish("merge", folder, cache)
        yield Trial(
            noticed="set aside" in outcome.errors,
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


def _flip(file: Path, place: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[place.randrange(len(content))] ^= 1 << place.randrange(8)
    file.write_bytes(content)


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
