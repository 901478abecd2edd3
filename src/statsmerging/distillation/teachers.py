"""Teachers label every unlabeled image once; the labels are cached by content."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.cache import Cache
from statsmerging.zoo.class_scores import class_scores
from statsmerging.zoo.experts import Zoo


def teacher_scores(zoo: Zoo, images: Mapping[str, ImageSplit], cache: Cache) -> dict[str, Tensor]:
    """Every teacher's scores on the learning images of its own task.

    Args:
        images: task name → its unlabeled learning images.

    Returns:
        Task name → N × C, float32. The arg-max is the hard pseudo-label.
    """
    return {
        task: class_scores(
            zoo, zoo.experts[task].state, task, split, cache, description=f"teacher {task}"
        )
        for task, split in images.items()
    }
