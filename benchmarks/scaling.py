"""Seconds of a learning step against the number of experts, the number of images held constant.

    python -m benchmarks.scaling                # B/32, K up to 20
    python -m benchmarks.scaling --micro        # a small network, K up to 64

The fit says what one more expert costs; it should be what reading its task vector twice costs.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from benchmarks.learning_step import Clock, Setting, learn, plain_step
from benchmarks.measuring import in_a_process, parser, publish

B_32 = ("vit_base_patch32_clip_224", 224)
TINY = ("vit_tiny_patch16_224", 32)


def main() -> None:
    """Measure every number of experts and print a table with the fit."""
    options = parse_options()
    name, size = TINY if options.micro else B_32
    rows = []
    for tasks in options.tasks:
        setting = Setting(name, size, tasks, options.images // tasks)
        step, plain = in_a_process(measure, setting, options.steps)
        rows.append({"K": tasks, "s per step": step, "plain": plain, "× plain": step / plain})
    experts = np.array(options.tasks)
    # In units of the plain network's step, which tells the machine's speed at that time.
    ratios = np.array([row["× plain"] for row in rows])
    slope, offset = np.polyfit(experts, ratios, 1)
    residual = float(np.abs(ratios - (offset + slope * experts)).max())
    plain = statistics.median(row["plain"] for row in rows)
    title = f"One step with {options.images} images: {name} at {size}"
    publish(
        options.json,
        f"scaling-{name}",
        title,
        rows,
        step_without_experts_times_plain=float(offset),
        one_expert_times_plain=float(slope),
        one_expert_ms=float(slope) * plain * 1000,
        largest_residual_times_plain=residual,
    )


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--micro", action="store_true", help="a small network, more experts")
    options.add_argument("--tasks", type=int, nargs="+", help="values of K")
    options.add_argument("--images", type=int, help="of all tasks together in one step")
    options.add_argument("--steps", type=int, default=9)
    arguments = options.parse_args()
    usual = ([4, 16, 64], 64) if arguments.micro else ([2, 5, 10, 20], 20)
    if arguments.small and not arguments.micro:
        usual, arguments.steps = ([2, 4, 8], 8), 5
    arguments.tasks = arguments.tasks or usual[0]
    arguments.images = arguments.images or usual[1]
    return arguments


def measure(setting: Setting, steps: int) -> tuple[float, float]:
    """Seconds of a step and of a plain forward and backward of the same images."""
    clock = Clock(plain_step(setting))
    learn(setting, steps + 1, clock)
    return statistics.median(clock.steps[1:]), statistics.median(clock.plain_steps[1:])


if __name__ == "__main__":
    main()
