"""Teachers label every unlabeled image once; the labels are cached by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.cache import Cache
from statsmerging.zoo.class_scores import class_scores
from statsmerging.zoo.experts import Zoo


@dataclass(frozen=True)
class Teacher:
    """One task's teacher.

    Attributes:
        zoo: a zoo with its expert, of the student's architecture or of another one.
        images: the unlabeled images as that zoo's backbone sees them.
    """

    zoo: Zoo
    images: ImageSplit

    def on_sample(self, count: int) -> Teacher:
        """The teacher with at most ``count`` of its images, the same ones for all geometries."""
        return replace(self, images=self.images.sample(count))


def teacher_scores(teachers: Mapping[str, Teacher], cache: Cache) -> dict[str, Tensor]:
    """Every teacher's scores on its images.

    Args:
        teachers: by task.

    Returns:
        Task name → N × C, float32. The arg-max is the hard pseudo-label.
    """
    return {
        task: class_scores(
            teacher.zoo,
            teacher.zoo.experts[task].state,
            task,
            teacher.images,
            cache,
            description=f"teacher {task}",
        )
        for task, teacher in teachers.items()
    }
