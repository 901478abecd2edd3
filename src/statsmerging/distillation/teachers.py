"""What is learned from: teachers label every image once; the labels are cached by content."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from statsmerging.data.image_cache import ImageSplit
from statsmerging.distillation.settings import LabelSettings
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


def learning_targets(
    labels: LabelSettings, zoo: Zoo, images: Mapping[str, ImageSplit], cache: Cache
) -> dict[str, Tensor]:
    """The scores that the merged model shall give on the learning images.

    Returns:
        Task name → N × C: of its teacher; of its teacher with the heads of all these tasks side by
        side (``restrict="none"``, C is the sum of their classes); or 1 for the true class and 0 for
        the others (``ground_truth``).
    """
    if labels.kind == "ground_truth":
        return {
            task: one_hot(split.labels, len(zoo.experts[task].head.weight)).float()
            for task, split in images.items()
        }
    if labels.restrict == "task":
        return teacher_scores(zoo, images, cache)
    return {
        task: torch.cat(
            [
                class_scores(
                    zoo,
                    zoo.experts[task].state,
                    head,
                    split,
                    cache,
                    description=f"teacher {task}, classes of {head}",
                )
                for head in images
            ],
            dim=1,
        )
        for task, split in images.items()
    }
