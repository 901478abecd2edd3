"""How good the teachers are on the learning images: reported, never learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit


@dataclass(frozen=True)
class TeacherQuality:
    """One teacher on the learning images of its task.

    Attributes:
        label_agreement: share of images on which its class is the ground truth. Far above its
            test accuracy, it says that the teacher was trained on these images. ``None`` where
            some of them are published without a label.
        confidence: mean of its highest class probability.
        images: number of images.
    """

    label_agreement: float | None
    confidence: float
    images: int


def teacher_quality(
    teachers: Mapping[str, Tensor], images: Mapping[str, ImageSplit]
) -> dict[str, TeacherQuality]:
    """Quality of every teacher; ground truth is read here to report it, after all learning.

    Args:
        teachers: task → its teacher's scores, N × C.
        images: task → its learning images.
    """
    return {
        task: TeacherQuality(
            label_agreement=_share_right(scores, images[task].labels),
            confidence=float(scores.softmax(dim=1).amax(dim=1).mean()),
            images=len(scores),
        )
        for task, scores in teachers.items()
    }


def _share_right(scores: Tensor, labels: Tensor) -> float | None:
    if bool((labels < 0).any()):
        return None
    return float((scores.argmax(dim=1) == labels).float().mean())
