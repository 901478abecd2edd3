"""Seconds and peak memory of merging methods that need no data, on random task vectors.

    python -m benchmarks.methods --model ViT-B-32-quickgelu --tasks 8 --methods tsv_m iso_c

Every method runs in a process of its own. Peak memory is above what the bank and θ₀ take, in
copies of the model.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import in_a_process, peak
from benchmarks.random_tower import random_tower
from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods import DataFreeMethod, method_named, methods


def main() -> None:
    options = parse()
    title = f"{options.model}, K = {options.tasks}, {torch.get_num_threads()} threads"
    table = Table("method", "seconds", "peak, models", title=title)
    for name in options.methods:
        seconds, models = in_a_process(measure, name, options.model, options.tasks)
        table.add_row(name, f"{seconds:.1f}", f"{models:.2f}")
    Console().print(table)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-32-quickgelu", help="a model of open_clip")
    parser.add_argument("--tasks", type=int, default=8, help="K")
    data_free = [name for name, kind in methods().items() if issubclass(kind, DataFreeMethod)]
    parser.add_argument("--methods", nargs="+", default=data_free, choices=data_free)
    return parser.parse_args()


def measure(name: str, model: str, tasks: int) -> tuple[float, float]:
    """Seconds of one merge, and its peak in copies of the model."""
    bank = random_bank(model, tasks)
    method = method_named(name)
    assert isinstance(method, DataFreeMethod)
    size = sum(start.nbytes for start in bank.pretrained.values())
    before, started = peak(), time.perf_counter()
    method.merge(bank)
    return time.perf_counter() - started, (peak() - before) / size


def random_bank(model: str, tasks: int) -> TaskVectorBank:
    """Task vectors of Gaussian noise for the image tower of a freshly initialised model."""
    start = random_tower(model)
    vectors = {name: 1e-3 * torch.randn(tasks, value.numel()) for name, value in start.items()}
    return TaskVectorBank(tuple(map(str, range(tasks))), start, vectors, {})


if __name__ == "__main__":
    main()
