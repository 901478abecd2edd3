"""A learning of coefficients as the framework does it, on random weights, images and labels."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks.measuring import synchronise
from benchmarks.random_bank import backbone, random_bank
from statsmerging.data.pictures import Preprocess
from statsmerging.learning.data_module import UnlabeledBatch, UnlabeledDataModule
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.learning.trainer import create_trainer
from statsmerging.merging import (
    DirectionLearner,
    LayerStatistics,
    MergedModel,
    StatsMergeLearner,
)
from statsmerging.zoo.heads import Head

CLASSES = 10

#: Learning images of each task: few, because experts are what memory is measured for.
IMAGES = 16

Student = Callable[..., MergedModel]


@dataclass(frozen=True)
class Setting:
    """What is learned.

    Attributes:
        backbone: timm's name.
        tasks: K.
        images_per_task: of one step.
        precision: of the task vectors.
        mapped: the task vectors lie in a memory-mapped file.
        compiled: the merge is.
    """

    backbone: str
    image_size: int
    tasks: int
    images_per_task: int
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: Literal["joint", "per_task"] = "joint"
    mapped: bool = False
    compiled: bool = False
    device: str = "cpu"


@dataclass
class Clock(Callback):
    """Times every step, and a plain forward and backward of the same network on the same images.

    Attributes:
        plain: run before every step; ``None`` for no comparison.
        now: the seconds now.
        steps: seconds of every step.
        plain_steps: seconds of every plain forward and backward.
    """

    plain: Callable[[UnlabeledBatch], object] | None = None
    now: Callable[[], float] = time.perf_counter
    steps: list[float] = field(default_factory=list)
    plain_steps: list[float] = field(default_factory=list)

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        self._device = str(module.device.type)
        synchronise(self._device)
        if self.plain is not None:
            start = self.now()
            self.plain(batch)
            synchronise(self._device)
            self.plain_steps.append(self.now() - start)
        self._start = self.now()

    def on_train_batch_end(self, *_: Any) -> None:
        synchronise(self._device)
        self.steps.append(self.now() - self._start)


def learn(setting: Setting, steps: int, clock: Clock, student: Student = MergedModel) -> None:
    """Learn a coefficient per layer for some steps; the clock is asked at every one of them."""
    torch.manual_seed(0)
    network = backbone(setting.backbone, setting.image_size)
    dtype = getattr(torch, setting.precision)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task_vectors.bin" if setting.mapped else None
        bank = random_bank(network, setting.tasks, dtype, memory_map=file)
        learner = StatsMergeLearner(random_statistics(bank.layers, bank.tasks), "layer_wise")
        fit(setting, steps, clock, learner, student(network, bank, compiled=setting.compiled))


def fit(
    setting: Setting,
    steps: int,
    clock: Clock,
    learner: StatsMergeLearner | DirectionLearner,
    student: MergedModel,
) -> None:
    """Learn for some steps, on random images and labels."""
    shape = (3, setting.image_size, setting.image_size)
    tasks = student.bank.tasks
    images = {task: torch.randint(256, (IMAGES, *shape), dtype=torch.uint8) for task in tasks}
    width = int(student.backbone(torch.zeros(1, *shape)).shape[1])
    module = StatsMerging(
        learner,
        student,
        {task: Head(torch.randn(CLASSES, width), torch.zeros(CLASSES)) for task in tasks},
        {task: torch.randn(IMAGES, CLASSES) for task in tasks},
        Preprocess(setting.image_size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).normalise,
        LabelsSettings(),
        "teacher_labels",
        TrainerSettings(
            steps=steps,
            images_per_task=setting.images_per_task,
            learning_rate=1e-3,
            weight_decay=0.0,
            accumulate=setting.accumulate,
            steps_per_epoch=steps,
            devices=1,
            seed=0,
        ),
    )
    data = UnlabeledDataModule(
        images, images_per_task=setting.images_per_task, steps_per_epoch=steps, seed=0
    )
    accelerator = "gpu" if setting.device == "cuda" else "cpu"
    create_trainer(
        accelerator=accelerator, epochs=1, description="learning", callbacks=[clock]
    ).fit(module, data)


def random_statistics(layers: tuple[str, ...], tasks: tuple[str, ...]) -> LayerStatistics:
    """Statistics of the paper's shape; what they say does not matter for the time of a step."""
    columns = ("mean", "variance", "magnitude", *(f"singular_value_{i}" for i in (1, 2, 3)))
    values = torch.randn(len(layers), len(tasks), len(columns), dtype=torch.float64)
    return LayerStatistics(values, columns, layers, tasks)


def plain_step(setting: Setting) -> Callable[[UnlabeledBatch], object]:
    """Forward and backward of one network of its own, all weights asking for gradients."""
    network = backbone(setting.backbone, setting.image_size).to(setting.device)

    def run(batch: UnlabeledBatch) -> None:
        network.zero_grad()
        network((batch.images.float() / 255 - 0.5) / 0.5).square().mean().backward()

    return run
