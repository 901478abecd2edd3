"""A whole learning step against a plain forward and backward of the same network.

    python -m benchmarks.step --backbone vit_base_patch32_clip_224 --images-per-task 16

Every variant learns in a process of its own, so that its peak memory is its own; before each of its
steps the plain network sees the same images.
"""

from __future__ import annotations

import argparse
import statistics

from benchmarks.learning_step import Clock, Setting, Student, learn, plain_step
from benchmarks.measuring import MIB, in_a_process, median_ratio, parser, peak, publish
from benchmarks.usual_merges import PythonSum, TrainableExperts
from statsmerging.merging import MergedModel

VARIANTS: dict[str, tuple[Student, bool]] = {
    "ours": (MergedModel, False),
    "ours, compiled": (MergedModel, True),
    "Python sum": (PythonSum, False),
    "Python sum, gradients of the experts": (TrainableExperts, False),
}


def main() -> None:
    """Measure every variant and print one table."""
    options = parse_options()
    rows = []
    for name in options.variants:
        plain, ours, ratio, mib = in_a_process(measure, name, options)
        rows.append({"step": name, "s": ours, "plain s": plain, "× plain": ratio, "MiB": mib})
    title = (
        f"One step: {options.backbone} at {options.image_size}, K = {options.tasks}, "
        f"{options.images_per_task} images a task"
    )
    name = f"step-{options.backbone}-{options.images_per_task}-images"
    publish(options.json, name, title, rows)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--image-size", type=int, default=224, help="pixels")
    options.add_argument("--tasks", type=int, default=8, help="K")
    options.add_argument("--images-per-task", type=int, default=16)
    options.add_argument("--steps", type=int, default=7, help="timed steps, after one warm-up")
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = options.parse_args()
    if arguments.small:
        arguments.tasks, arguments.images_per_task, arguments.steps = 4, 1, 4
    return arguments


def measure(name: str, options: argparse.Namespace) -> tuple[float, float, float, float]:
    """Seconds of a plain and of our step, their ratio, and peak MiB above the imports'."""
    student, compiled = VARIANTS[name]
    setting = Setting(
        options.backbone,
        options.image_size,
        options.tasks,
        options.images_per_task,
        compiled=compiled,
        device=options.device,
    )
    before = peak()
    clock = Clock(plain_step(setting))
    learn(setting, options.steps + 1, clock, student)
    plain, ours = clock.plain_steps[1:], clock.steps[1:]
    return (
        statistics.median(plain),
        statistics.median(ours),
        median_ratio(ours, plain),
        (peak() - before) / MIB,
    )


if __name__ == "__main__":
    main()
