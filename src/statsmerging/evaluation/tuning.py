"""Choosing a hyper-parameter without labels: the value that agrees most with the teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.cache import Cache
from statsmerging.zoo.class_scores import class_scores
from statsmerging.zoo.experts import Zoo


def tune_by_teacher_agreement(
    merge: Callable[[float], dict[str, Tensor]],
    grid: Sequence[float],
    zoo: Zoo,
    images: Mapping[str, ImageSplit],
    teachers: Mapping[str, Tensor],
    cache: Cache,
) -> float:
    """The value of the grid whose merged model most often predicts the teacher's class.

    Agreement is averaged over tasks on the unlabeled learning images; ground truth is not used.
    The first of equally good values wins.

    Args:
        merge: value → state dict of the merged model.
        images: task name → learning images.
        teachers: task name → the teacher's scores on them, N × C.
    """

    def agreement(value: float) -> float:
        state = merge(value)
        shares = []
        for task, split in images.items():
            scores = class_scores(
                zoo, state, task, split, cache, description=f"λ = {value} on {task}"
            )
            same = scores.argmax(dim=1) == teachers[task].argmax(dim=1)
            shares.append(float(same.float().mean()))
        return sum(shares) / len(shares)

    return max(grid, key=agreement)
