"""Batches: balanced over tasks, complete passes, a pure function of seed and step."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from statsmerging.learning.data_module import (
    TaskBalancedSampler,
    UnlabeledBatch,
    UnlabeledDataModule,
    UnlabeledImages,
)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    per_task=st.integers(1, 5),
    batches=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_batches_are_balanced_and_visit_every_image_equally_often(
    sizes: list[int], per_task: int, batches: int, seed: int
) -> None:
    stream = list(TaskBalancedSampler(sizes, per_task, batches, seed))
    assert len(stream) == batches
    for task, size in enumerate(sizes):
        visits = [index for batch in stream for t, index in batch if t == task]
        assert len(visits) == per_task * batches
        counts = [visits.count(index) for index in range(size)]
        assert max(counts) - min(counts) <= 1


def test_epochs_continue_the_stream() -> None:
    whole = list(TaskBalancedSampler([7, 5], 2, 6, seed=3))
    parts = []
    sampler = TaskBalancedSampler([7, 5], 2, 2, seed=3)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        parts += list(sampler)
    assert parts == whole
    assert list(TaskBalancedSampler([7, 5], 2, 6, seed=4)) != whole


def test_a_batch_has_images_task_by_task_their_indices_and_no_label() -> None:
    images = {
        "a": torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1),
        "b": torch.full((3, 1, 1, 1), 9),
    }
    data = UnlabeledDataModule(images, images_per_task=2, steps_per_epoch=3, seed=0)
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in batches:
        assert isinstance(batch, UnlabeledBatch)
        assert batch._fields == ("images", "indices")
        for task, image, index in zip("aabb", *batch, strict=True):
            assert torch.equal(image, images[task][int(index)])
    assert not any("label" in name for name in vars(UnlabeledImages(images)))
