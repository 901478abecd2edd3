"""Peak memory of a learning against the number of experts, task by task.

    python -m benchmarks.memory                                # B/32, K from 2 to 20
    python -m benchmarks.memory --mapped --backbone vit_large_patch14_clip_224 --tasks 20

The peak is the resident memory of a process of its own, files that are mapped into it included,
above that of its imports. An expert should cost one backbone in the precision of the task vectors,
and nothing where they lie in a mapped file.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.learning_step import Clock, Setting, learn
from benchmarks.measuring import MIB, in_a_process, parser, peak, publish
from benchmarks.random_bank import backbone

BYTES = {"float32": 4, "bfloat16": 2}


def main() -> None:
    """Measure every number of experts and print one table."""
    options = parse_options()
    setting = {
        "backbone": options.backbone,
        "image_size": 224,
        "images_per_task": 1 if options.mapped else 4,
        "precision": options.precision,
        "accumulate": "per_task",
        "mapped": options.mapped,
    }
    numel = sum(p.numel() for p in backbone(options.backbone, 224).parameters())
    expert = numel * BYTES[options.precision] / MIB
    rows: list[dict[str, Any]] = []
    for tasks in options.tasks:
        imports, total = in_a_process(measure, Setting(tasks=tasks, **setting))
        row = {"K": tasks, "peak MiB": total / MIB, "above imports": (total - imports) / MIB}
        grown = row["above imports"] - rows[0]["above imports"] if rows else None
        added = expert * (tasks - options.tasks[0])
        row["backbones per expert added"] = None if grown is None else grown / added
        rows.append(row)
    where = "in a mapped file" if options.mapped else "in memory"
    title = f"Memory of learning: {options.backbone}, {options.precision} {where}"
    name = f"memory-{options.backbone}" + ("-mapped" if options.mapped else "")
    publish(options.json, name, title, rows, backbone_mib=expert)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--tasks", type=int, nargs="+", default=[2, 8, 20], help="values of K")
    options.add_argument("--precision", choices=list(BYTES), default="float32")
    options.add_argument("--mapped", action="store_true", help="task vectors in a mapped file")
    arguments = options.parse_args()
    if arguments.small:
        arguments.tasks = [2, 6]
    return arguments


def measure(setting: Setting) -> tuple[int, int]:
    """Peak after the imports and after the learning, in bytes."""
    before = peak()
    learn(setting, 1 if setting.mapped else 2, Clock())
    return before, peak()


if __name__ == "__main__":
    main()
