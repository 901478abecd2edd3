"""Time and peak memory of one learning step: our merge, a plain network, a Python-sum merge.

    python benchmarks/merge_step.py --backbone vit_tiny_patch16_224 --image-size 64 --tasks 8

Every variant runs in a process of its own, on random weights, so that its peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import timm
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging import MergedModel, TaskVectorBank

VARIANTS = {
    "plain": "plain forward and backward, one model",
    "ours": "StatsMerging's merge, coefficients learned",
    "python_sum": "θ₀ + Σ λ T as Python sums through autograd",
}


def main() -> None:
    """Measure every variant and print the table; with ``--variant`` measure one, as JSON."""
    arguments = parse_arguments()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    table = Table(title=f"{arguments.backbone} at {arguments.image_size} px, K = {arguments.tasks}")
    for heading in ("variant", "ms per step", "× plain", "peak MiB above start"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    results = {name: measure_apart(name) for name in VARIANTS}
    for name, title in VARIANTS.items():
        row = results[name]
        ratio = row["seconds"] / results["plain"]["seconds"]
        table.add_row(
            title, f"{1000 * row['seconds']:.0f}", f"{ratio:.2f}", f"{row['peak_mib']:.0f}"
        )
    Console().print(table)


def parse_arguments() -> argparse.Namespace:
    """Sizes of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224", help="timm name")
    parser.add_argument("--image-size", type=int, default=64, help="pixels")
    parser.add_argument("--tasks", type=int, default=8, help="K")
    parser.add_argument("--images-per-task", type=int, default=8)
    parser.add_argument("--steps", type=int, default=7, help="timed steps, after two warm-ups")
    parser.add_argument("--variant", choices=list(VARIANTS))
    return parser.parse_args()


def measure_apart(variant: str) -> dict[str, float]:
    """Measure one variant in a fresh process."""
    command = [sys.executable, *sys.argv, "--variant", variant]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, and the peak resident memory above that before the weights."""
    torch.manual_seed(0)
    before = peak_mib()
    step = make_step(arguments)
    times = []
    for _ in range(arguments.steps + 2):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return {"seconds": sorted(times[2:])[arguments.steps // 2], "peak_mib": peak_mib() - before}


def make_step(arguments: argparse.Namespace) -> Callable[[], None]:
    """One forward and backward over the images of all tasks."""
    backbone = timm.create_model(
        arguments.backbone, num_classes=0, img_size=arguments.image_size
    ).eval()
    count = arguments.tasks * arguments.images_per_task
    images = torch.randn(count, 3, arguments.image_size, arguments.image_size)
    if arguments.variant == "plain":
        return lambda: backbone(images).square().mean().backward()

    bank = random_bank(backbone, arguments.tasks)
    coefficients = torch.full((len(bank.layers), arguments.tasks), 0.3, requires_grad=True)
    if arguments.variant == "ours":
        student = MergedModel(backbone, bank)
        return lambda: student(images, coefficients).square().mean().backward()
    return lambda: python_sum(backbone, bank, images, coefficients).square().mean().backward()


def random_bank(backbone: nn.Module, tasks: int) -> TaskVectorBank:
    """A bank of random task vectors, made without K state dicts in memory."""
    pretrained = {name: value.detach() for name, value in backbone.named_parameters()}
    vectors = {name: torch.randn(tasks, value.numel()) * 1e-3 for name, value in pretrained.items()}
    kept = dict(backbone.named_buffers())
    return TaskVectorBank(tuple(f"task_{k}" for k in range(tasks)), pretrained, vectors, kept)


def python_sum(
    backbone: nn.Module, bank: TaskVectorBank, images: Tensor, coefficients: Tensor
) -> Tensor:
    """The usual merge of the field: one autograd node per layer and task."""
    weights: dict[str, Tensor] = {}
    for row, (name, start) in zip(coefficients, bank.pretrained.items(), strict=True):
        total = start
        for k in range(len(bank.tasks)):
            total = total + row[k] * bank.vectors[name][k].view_as(start)
        weights[name] = total
    output: Tensor = functional_call(backbone, weights, (images,))
    return output


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
