"""Agreement with the teachers on unlabeled images: the rule that chooses hyper-parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.evaluation.candidate import Candidate
from statsmerging.records.cache import Cache
from statsmerging.zoo.class_scores import class_scores


class TeacherAgreement:
    """How often a model predicts the teacher's class. Ground truth is not used.

    Args:
        images: task name → unlabeled images.
        teachers: task name → the teacher's scores on them, N × C.
        cache: scores of weights that were scored before.
    """

    def __init__(
        self, images: Mapping[str, ImageSplit], teachers: Mapping[str, Tensor], cache: Cache
    ) -> None:
        self.images = images
        self.labels = {task: scores.argmax(dim=1) for task, scores in teachers.items()}
        self.cache = cache

    def of(self, candidate: Candidate) -> float:
        """Share of images on which model and teacher agree, averaged over tasks."""
        shares = []
        for task, split in self.images.items():
            scores = class_scores(
                candidate.zoo,
                candidate.weights_of(task),
                task,
                split,
                self.cache if candidate.keep else None,
                description=f"{candidate.title} on {task}, agreement",
            )
            shares.append(float((scores.argmax(dim=1) == self.labels[task]).float().mean()))
        return sum(shares) / len(shares)
