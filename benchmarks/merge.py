"""Merge and coefficient gradient against the bandwidth of the memory.

    python -m benchmarks.merge --backbone vit_base_patch32_clip_224 --tasks 8

Bytes are those of the task vectors read twice, once for the merge and once for the gradient; the
bandwidth is that of a large copy in the same run (bytes read and written). What is read and written
besides, θ₀, θ and its gradient, is counted in the last column.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.measuring import in_a_process, median_ratio, parser, publish, seconds_in_turns
from benchmarks.random_bank import backbone, random_bank
from benchmarks.usual_merges import python_sum
from statsmerging.merging import MergedModel, TaskVectorBank

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

#: Numbers of the copy: far more than a cache holds, and no more memory than L/14 leaves.
LARGE = 1 << 28

Merge = Callable[[Tensor], Mapping[str, Tensor]]


def main() -> None:
    """Measure every precision and print one table."""
    options = parse_options()
    # Each in a process of its own: two banks of L/14 do not fit into the memory of a small machine.
    rows = [row for name in PRECISIONS for row in in_a_process(measure, options, name)]
    title = f"Merge and its gradient: {options.backbone}, K = {options.tasks}"
    publish(options.json, f"merge-{options.backbone}", title, rows)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--tasks", type=int, default=8, help="K")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument(
        "--ours-alone",
        action="store_true",
        help="without Python's sum, which takes the memory of another K networks",
    )
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = options.parse_args()
    if arguments.small:
        arguments.tasks, arguments.rounds = 4, 5
    return arguments


def measure(options: argparse.Namespace, precision: str) -> list[dict[str, object]]:
    """One row per way to merge, with the task vectors in one precision."""
    network = backbone(options.backbone, 224).to(options.device)
    bank = random_bank(network, options.tasks, PRECISIONS[precision], options.device)
    merges: dict[str, Merge] = {
        "ours": MergedModel(network, bank).weights,
        "ours, compiled": MergedModel(network, bank, compiled=True).weights,
    }
    if precision == "float32" and not options.ours_alone:
        merges["Python sum"] = lambda coefficients: python_sum(bank, coefficients)
    gradients = [torch.randn_like(start) for start in bank.pretrained.values()]
    variants = {name: merge_and_gradient(merge, bank, gradients) for name, merge in merges.items()}
    task_vectors = sum(rows.nbytes for rows in bank.vectors.values())
    source = torch.ones(min(task_vectors // 8, LARGE), device=options.device)
    target = torch.empty_like(source)
    copied = source.nbytes + target.nbytes
    variants["copy"] = lambda: target.copy_(source)
    seconds = seconds_in_turns(variants, options.rounds, options.device)

    bytes_read = {
        "of the copy": 2 * task_vectors,
        # θ₀ is read, θ is written and read again as its gradient: three models.
        "all counted": 2 * task_vectors + 3 * sum(p.nbytes for p in bank.pretrained.values()),
    }
    rows: list[dict[str, object]] = []
    for name in variants:
        ratio = median_ratio(seconds[name], seconds["copy"])
        row: dict[str, object] = {
            "merge": f"{name}, {precision}" if name in merges else f"copy beside {precision}",
            "ms": 1000 * statistics.median(seconds[name]),
        }
        for heading, count in bytes_read.items():
            row[heading] = count / copied / ratio if name in merges else None
        if "Python sum" in merges and name in merges:
            row["× faster than Python sum"] = median_ratio(seconds["Python sum"], seconds[name])
        else:
            row["× faster than Python sum"] = None
        rows.append(row)
    return rows


def merge_and_gradient(
    merge: Merge, bank: TaskVectorBank, gradients: Sequence[Tensor]
) -> Callable[[], object]:
    """What a step does beside the network: θ(λ), then ∂L/∂λ from ∂L/∂θ."""
    shape = (len(bank.layers), len(bank.tasks))
    coefficients = torch.full(shape, 0.3, device=bank.device, requires_grad=True)

    def run() -> object:
        weights = merge(coefficients)
        return torch.autograd.grad(list(weights.values()), coefficients, gradients)

    return run


if __name__ == "__main__":
    main()
