"""The spectral bank: seconds to build it, seconds of a learning step with it, and their memory.

    python -m benchmarks.spectral                       # time, K = 8
    python -m benchmarks.spectral --memory              # memory, K = 2 and 20

Experts are read tensor by tensor, like those in files; making them is not counted. A step is
Lightning's training step with the network that gives every singular direction its coefficient,
against a plain forward and backward of the same network on the same images with gradients for all
its weights. Memory is the peak of a process of its own above its imports, without the plain
network, with one image a task, task after task: images are not what it is about.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from benchmarks.drawn_experts import drawn_experts
from benchmarks.learning_step import Clock, Setting, fit, plain_step
from benchmarks.measuring import CLOCKS, MIB, in_a_process, median_ratio, parser, peak, publish
from benchmarks.random_bank import backbone
from statsmerging.merging import (
    DirectionLearner,
    MergedModel,
    SpectralBank,
    direction_statistics,
)

IMAGE_SIZE = 224


def main() -> None:
    """Measure every number of experts and print one table."""
    options = parse_options()
    measure = measure_memory if options.memory else measure_time
    rows = [in_a_process(measure, tasks, options) for tasks in options.tasks]
    what = "memory" if options.memory else f"time ({options.clock} clock)"
    title = f"Spectral bank, {what}: {options.backbone}, {options.images_per_task} images a task"
    publish(options.json, f"spectral-{what.split()[0]}-{options.backbone}", title, rows)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--tasks", type=int, nargs="+", help="values of K")
    options.add_argument("--images-per-task", type=int, help="of one step")
    options.add_argument("--steps", type=int, default=3, help="timed steps, after one warm-up")
    options.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options.add_argument("--memory", action="store_true", help="measure memory instead of time")
    arguments = options.parse_args()
    if arguments.small:
        arguments.backbone, arguments.images_per_task = "vit_small_patch32_224", 1
        arguments.tasks = [2, 6] if arguments.memory else [4]
    arguments.tasks = arguments.tasks or ([2, 20] if arguments.memory else [8])
    arguments.images_per_task = arguments.images_per_task or (1 if arguments.memory else 16)
    return arguments


def measure_time(tasks: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of building, of a step and of a plain one."""
    now = CLOCKS[options.clock]
    model, build = built_model(options.backbone, tasks, options.clock)
    setting = Setting(options.backbone, IMAGE_SIZE, tasks, options.images_per_task)
    clock = Clock(plain_step(setting), now)
    learn(model, setting, options.steps + 1, clock)
    plain, ours = clock.plain_steps[1:], clock.steps[1:]
    return {
        "K": tasks,
        "build s": build,
        "step s": statistics.median(ours),
        "plain s": statistics.median(plain),
        "× plain": median_ratio(ours, plain),
    }


def measure_memory(tasks: int, options: argparse.Namespace) -> dict[str, Any]:
    """Peak above the imports after building and after learning, in MiB."""
    before = peak()
    model, _ = built_model(options.backbone, tasks, options.clock)
    built = peak()
    setting = Setting(
        options.backbone, IMAGE_SIZE, tasks, options.images_per_task, accumulate="per_task"
    )
    learn(model, setting, 2, Clock())
    return {
        "K": tasks,
        "MiB, bank built": (built - before) / MIB,
        "MiB, after steps": (peak() - before) / MIB,
    }


def built_model(name: str, tasks: int, clock: str) -> tuple[MergedModel, float]:
    """A merged model on the directions of K experts, and the seconds of finding these."""
    torch.manual_seed(0)
    network = backbone(name, IMAGE_SIZE)
    pretrained = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    now = CLOCKS[clock]
    experts, noise = drawn_experts(pretrained, tasks, now)
    started = now()
    bank = SpectralBank.from_state_dicts(pretrained, experts)
    seconds = now() - started - noise.seconds
    return MergedModel(network, bank), seconds


def learn(model: MergedModel, setting: Setting, steps: int, clock: Clock) -> None:
    """Learn a coefficient per direction for some steps."""
    assert isinstance(model.bank, SpectralBank)
    fit(setting, steps, clock, DirectionLearner(direction_statistics(model.bank)), model)


if __name__ == "__main__":
    main()
