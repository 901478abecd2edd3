"""Measures what a row costs: seconds and memory of each phase, beside the numbers that are counted.

Work that several rows share is measured the one time it is done and told in each of these rows.
"""

from __future__ import annotations

import ctypes
import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from statsmerging.learning.trainer import CheckedCheckpoints
from statsmerging.runs.cost import Cost, Measured, MemoryOf, Phase
from statsmerging.store.cache import Cache

#: Entry of a checkpoint: seconds of the learning so far, those before a kill included.
SECONDS = "learning_seconds"


@dataclass(frozen=True)
class Expense:
    """A part of the work on a row: what is counted and what is measured of it."""

    cost: Cost = field(default_factory=Cost)
    measured: Measured = field(default_factory=Measured)

    def __add__(self, other: Expense) -> Expense:
        return Expense(self.cost + other.cost, self.measured + other.measured)

    def as_tuning(self) -> Expense:
        """The same work, done to find the best value of a grid; it leaves no parameters."""
        measured = self.measured
        return Expense(
            self.cost.model_copy(update={"parameters": 0}),
            Measured(
                seconds={"tuning": sum(measured.seconds.values())},
                memory={"tuning": max(measured.memory.values())} if measured.memory else {},
                memory_of=measured.memory_of,
                cached=["tuning"] if measured.cached else [],
                resumed=measured.resumed,
            ),
        )


class Meter:
    """Measures phases one after the other and sums them up.

    Seconds are those of the wall clock, and with them what the run has spent before on entries of
    the cache that the phase reads: a row tells them as if it were alone.
    Memory is the highest above that at the beginning of a phase: of CUDA's allocator on a GPU, else
    of the process as the Linux kernel counts it; where it does not, memory is not known. The
    kernel's own highest count begins anew with each phase.

    Args:
        device: where tensors of the work are.
        cache: of the run.
    """

    def __init__(self, device: torch.device, cache: Cache) -> None:
        self.device = device
        self.cache = cache
        self.expense = Expense()

    @contextmanager
    def phase(self, phase: Phase, *, alone: bool = True) -> Iterator[None]:
        """Measure what is done in the block; phases do not stand within each other.

        Args:
            alone: whether this process does all the work; else its memory tells nothing.
        """
        found_before, spared_before = self.cache.found, self.cache.spared
        memory_before = self._begin()
        begun = time.perf_counter()
        try:
            yield
        finally:  # a value of a grid that failed has cost its time too
            self._synchronise()
            seconds = time.perf_counter() - begun + self.cache.spared - spared_before
            cached: list[str] = [phase] if self.cache.found > found_before else []
            measured = Measured(seconds={phase: seconds}, cached=cached)
            highest = self._highest() if alone else None
            if highest is not None and memory_before is not None:
                memory: dict[str, int] = {phase: max(0, highest - memory_before)}
                of: MemoryOf = "cuda" if self._on_gpu else "host"
                measured += Measured(memory=memory, memory_of=of)
            self.expense += Expense(measured=measured)

    def count(self, cost: Cost) -> None:
        """Add what is counted."""
        self.expense += Expense(cost)

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _begin(self) -> int | None:
        """Start measuring the highest memory; that of now, in bytes."""
        _release_memory()
        self._synchronise()
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the highest one becomes that of now
        except OSError:
            return None
        return _resident("VmRSS")

    def _highest(self) -> int | None:
        """Highest memory since the beginning, in bytes."""
        if self._on_gpu:
            return torch.cuda.max_memory_allocated(self.device)
        return _resident("VmHWM")

    def _synchronise(self) -> None:
        """Wait until a GPU has done what it was told."""
        if self._on_gpu:
            torch.cuda.synchronize(self.device)


class LearningClock(Callback):
    """Keeps the seconds of a learning in its checkpoints.

    Args:
        before: seconds that a killed run has spent.
    """

    def __init__(self, before: float) -> None:
        self.begun = time.monotonic() - before  # one clock for all processes of a machine

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[SECONDS] = time.monotonic() - self.begun


def seconds_before(checkpoint: Path | None) -> Measured:
    """The learning up to a checkpoint from which it continues; nothing without one.

    Checkpoints of earlier versions do not tell their seconds.
    """
    if checkpoint is None:
        return Measured()
    seconds = CheckedCheckpoints().load_checkpoint(checkpoint).get(SECONDS)
    if not isinstance(seconds, float) or not 0 <= seconds < math.inf:
        return Measured(resumed=True)
    return Measured(seconds={"learning": seconds}, resumed=True)


def _release_memory() -> None:
    """Give freed memory back, so that a phase is not given what others have left.

    ``settle_process`` keeps it for the steps of a phase. Garbage in cycles is not looked for: that
    takes up to a second where many objects are alive, and a grid has hundreds of phases.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _resident(entry: str) -> int | None:
    """An entry of the kernel's account of this process, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{entry}:")]
    return 1024 * int(found[0]) if found else None
