"""Batches with the same number of images from every task, a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

#: Where one image is: index of the task, index of the image within the task.
Address = tuple[int, int]


class TaskBalancedSampler(Sampler[list[Address]]):
    """Batches with the same number of images from every task.

    A task's images are visited in shuffled passes. A batch depends on seed and step alone, so a
    run that continues from a checkpoint sees the batches it would have seen.

    Args:
        sizes: number of images of each task.
        images_per_task: images of each task in a batch; a smaller task repeats its images.
        batches: number of batches in an epoch.
        seed: of the shuffles.
    """

    def __init__(self, sizes: list[int], images_per_task: int, batches: int, seed: int) -> None:
        self.sizes = sizes
        self.images_per_task = images_per_task
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also of a continued run."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Address]]:
        streams = [self._stream(task) for task in range(len(self.sizes))]
        for _ in range(self.batches):
            yield [
                (task, next(stream))
                for task, stream in enumerate(streams)
                for _ in range(self.images_per_task)
            ]

    def _stream(self, task: int) -> Iterator[int]:
        """Image indices of one task from the epoch's first batch on."""
        size = self.sizes[task]
        passes, position = divmod(self.epoch * self.batches * self.images_per_task, size)
        while True:
            order = np.random.default_rng([self.seed, task, passes]).permutation(size)
            yield from order[position:].tolist()
            passes, position = passes + 1, 0


class ShardedSampler(Sampler[list[Address]]):
    """What one of several processes sees of every batch: an equal share of each task's images.

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
