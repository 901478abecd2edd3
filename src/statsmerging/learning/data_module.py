"""Unlabeled images of all tasks, the same number from each task in every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from statsmerging.data.images import Images

#: Where one image is: index of the task, index of the image within the task.
Address = tuple[int, int]


class TaskBalancedSampler(Sampler[list[Address]]):
    """Batches with the same number of images from every task, or from every task of a subset.

    A task's images are visited in shuffled passes. A batch depends on seed and step alone, so a
    run that continues from a checkpoint sees the batches it would have seen.

    Args:
        sizes: number of images of each task.
        images_per_task: images of each task in a batch; a smaller task repeats its images.
        batches: number of batches in an epoch.
        seed: of the shuffles.
        tasks: number of the batch, over all epochs → numbers of the tasks in it, ascending;
            ``None``: all tasks are in every batch.
    """

    def __init__(
        self,
        sizes: list[int],
        images_per_task: int,
        batches: int,
        seed: int,
        tasks: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        self.sizes = sizes
        self.images_per_task = images_per_task
        self.batches = batches
        self.seed = seed
        self.tasks = tasks
        self.epoch = 0

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also of a continued run."""
        self.epoch = epoch

    def images(self, batches: int) -> int:
        """How many images the first batches of a training have."""
        return self.images_per_task * sum(len(self._tasks(batch)) for batch in range(batches))

    def __iter__(self) -> Iterator[list[Address]]:
        first = self.epoch * self.batches
        before = Counter(task for batch in range(first) for task in self._tasks(batch))
        streams = [
            self._stream(task, before[task] * self.images_per_task)
            for task in range(len(self.sizes))
        ]
        for batch in range(first, first + self.batches):
            yield [
                (task, next(streams[task]))
                for task in self._tasks(batch)
                for _ in range(self.images_per_task)
            ]

    def _tasks(self, batch: int) -> Sequence[int]:
        return range(len(self.sizes)) if self.tasks is None else self.tasks(batch)

    def _stream(self, task: int, visited: int) -> Iterator[int]:
        """Image indices of one task after the first ``visited`` ones."""
        size = self.sizes[task]
        passes, position = divmod(visited, size)
        while True:
            order = np.random.default_rng([self.seed, task, passes]).permutation(size)
            yield from order[position:].tolist()
            passes, position = passes + 1, 0


class ShardedSampler(Sampler[list[Address]]):
    """The share of one process in every batch: an equal number of images of each task.

    Args:
        batches: the whole batches, task by task.
        images_per_task: images of each task in a whole batch; a multiple of ``processes``.
        process: number of this process, from 0.
        processes: how many there are.
    """

    def __init__(
        self, batches: TaskBalancedSampler, images_per_task: int, process: int, processes: int
    ) -> None:
        self.batches = batches
        self.images_per_task = images_per_task
        self.process = process
        self.processes = processes

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Address]]:
        share = self.images_per_task // self.processes
        for batch in self.batches:
            starts = range(self.process * share, len(batch), self.images_per_task)
            yield [address for start in starts for address in batch[start : start + share]]


class LabeledBatch(NamedTuple):
    """Images uint8, B × 3 × S × S, and their classes int64, B."""

    images: Tensor
    labels: Tensor


class LabeledImages(Dataset[LabeledBatch]):
    """One task's training images; an item is a whole batch, given by its addresses.

    Args:
        images: uint8, N × 3 × S × S.
        labels: int64, N.
    """

    def __init__(self, images: Images, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __getitem__(self, addresses: list[Address]) -> LabeledBatch:
        rows = torch.tensor([index for _, index in addresses])
        return LabeledBatch(self.images[rows], self.labels[rows])


class UnlabeledBatch(NamedTuple):
    """A batch of the learning step. It has no labels, because its data set has none.

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

    def __init__(self, images: Mapping[str, Images]) -> None:
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
        tasks: number of the step → numbers of the tasks whose images it sees, ascending; ``None``:
            all.
    """

    def __init__(
        self,
        images: Mapping[str, Images],
        *,
        images_per_task: int,
        steps_per_epoch: int,
        seed: int,
        tasks: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        self.dataset = UnlabeledImages(images)
        self.images_per_task = images_per_task
        sizes = [len(task) for task in self.dataset.images]
        self.sampler = TaskBalancedSampler(sizes, images_per_task, steps_per_epoch, seed, tasks)

    def train_dataloader(self) -> DataLoader[UnlabeledBatch]:
        """Whole batches, or this process's share where several learn together."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return DataLoader(self.dataset, sampler=self.sampler, batch_size=None)
        shard = ShardedSampler(
            self.sampler, self.images_per_task, trainer.global_rank, trainer.world_size
        )
        return DataLoader(self.dataset, sampler=shard, batch_size=None)
