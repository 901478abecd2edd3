"""What all benchmarks share: timing in turns, processes of their own, one table and one JSON file.

The machine's speed changes while a benchmark runs, so variants are timed in turns, round by round,
and compared within a round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from statsmerging.app.setup import settle_process

MIB = 1 << 20

#: Other work on the machine slows the wall's clock more than that of the process.
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}

Result = TypeVar("Result")
Rows = Sequence[Mapping[str, Any]]


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--small", action="store_true", help="reduced sizes, for `make bench`")
    options.add_argument(
        "--json", type=Path, default=Path("outputs/benchmarks"), help="folder of the JSON files"
    )
    return options


def seconds_in_turns(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every variant in every round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, function in variants.items():
            synchronise(device)
            start = now()
            function()
            synchronise(device)
            seconds[name].append(now() - start)
    return {name: values[1:] for name, values in seconds.items()}


def median_ratio(seconds: Sequence[float], reference: Sequence[float]) -> float:
    """Median over the rounds of one variant's time by another's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def in_a_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """The function's result, computed by a fresh process whose peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak() -> int:
    """Highest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, Any]:
    """Kind of the machine: cores, memory, GPU, versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(memory / 2**30),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def publish(folder: Path, name: str, title: str, rows: Rows, **facts: Any) -> None:
    """Print the rows as a table and write them to ``folder/name.json``, with the machine."""
    table = Table(title=title)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == next(iter(rows[0])) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    console = Console(width=120)
    console.print(table)
    for fact, value in facts.items():
        console.print(f"{fact.replace('_', ' ')}: {_shown(value)}")
    folder.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "machine": machine(), "rows": list(rows), **facts}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


# As in every job of the framework, for all variants of a benchmark alike.
settle_process(threads=None)
