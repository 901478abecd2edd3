"""Unlabeled images of all tasks, the same number from each task in every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from statsmerging.data.sampler import Address, ShardedSampler, TaskBalancedSampler


class UnlabeledBatch(NamedTuple):
    """What ``fit`` receives: no label is among it, because the data set has none.

    Attributes:
        images: uint8, (K·n) × 3 × S × S, task by task.
        indices: int64, K·n, index of the image within its task.
    """

    images: Tensor
    indices: Tensor


class UnlabeledImages(Dataset[UnlabeledBatch]):
    """The learning images of K tasks; an item is a whole batch, given by its addresses.

    Args:
        images: task name → uint8, N × 3 × S × S.
    """

    def __init__(self, images: Mapping[str, Tensor]) -> None:
        self.images = tuple(images.values())

    def __getitem__(self, addresses: list[Address]) -> UnlabeledBatch:
        return UnlabeledBatch(
            torch.stack([self.images[task][index] for task, index in addresses]),
            torch.tensor([index for _, index in addresses]),
        )


class UnlabeledDataModule(L.LightningDataModule):
    """Supplies the learning images of all tasks to ``Trainer.fit``.

    Args:
        images: task name → uint8, N × 3 × S × S.
        images_per_task: images of each task in one step.
        steps_per_epoch: steps between two checkpoints.
        seed: of the order of the images.
    """

    def __init__(
        self, images: Mapping[str, Tensor], *, images_per_task: int, steps_per_epoch: int, seed: int
    ) -> None:
        super().__init__()
        self.dataset = UnlabeledImages(images)
        self.images_per_task = images_per_task
        self.sampler = TaskBalancedSampler(
            [len(task) for task in self.dataset.images], images_per_task, steps_per_epoch, seed
        )

    def train_dataloader(self) -> DataLoader[UnlabeledBatch]:
        """Whole batches, or this process's share where several learn together."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return DataLoader(self.dataset, sampler=self.sampler, batch_size=None)
        shard = ShardedSampler(
            self.sampler, self.images_per_task, trainer.global_rank, trainer.world_size
        )
        return DataLoader(self.dataset, sampler=shard, batch_size=None)
