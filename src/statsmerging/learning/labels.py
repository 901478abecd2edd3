"""Teachers and their pseudo-labels, and the losses that compare a merged model with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import one_hot

from statsmerging.data.images import ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.settings import LabelsSettings
from statsmerging.scoring.scores import class_scores
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Zoo


def distillation_loss(student: Tensor, teacher: Tensor, labels: LabelsSettings) -> Tensor:
    """Mean loss over the images that count, see ``LabelsSettings``; 0 if there is none.

    Hard labels and ground truth: cross-entropy against the arg-max of ``teacher``. Soft labels:
    KL(teacher ‖ student) at temperature τ, times τ² (Hinton et al., 2015).

    Args:
        student: scores of the merged model, n × C.
        teacher: scores of the teacher on the same images, n × C.
    """
    if labels.kind != "soft":
        losses = F.cross_entropy(student, teacher.argmax(dim=1), reduction="none")
    else:
        tau = labels.temperature
        divergence = F.kl_div(
            F.log_softmax(student / tau, dim=1),
            F.log_softmax(teacher / tau, dim=1),
            reduction="none",
            log_target=True,
        )
        losses = divergence.sum(dim=1) * tau**2
    sure, label = teacher.softmax(dim=1).max(dim=1)
    counting = sure >= labels.min_confidence
    if labels.unless_surer:
        surest, found = student.detach().softmax(dim=1).max(dim=1)
        counting &= (found == label) | (surest <= sure)
    return (losses * counting).sum() / counting.sum().clamp_min(1)


def entropy(student: Tensor) -> Tensor:
    """Mean entropy in nats of the predictions n × C (AdaMerging, Yang et al., ICLR 2024)."""
    log_probabilities = torch.log_softmax(student, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()


@dataclass(frozen=True)
class Teacher:
    """One task's teacher.

    Attributes:
        zoo: a zoo with its expert, of the student's architecture or of another one.
        images: the unlabeled images in the geometry of that zoo's backbone.
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
        task: _scores(teacher, task, task, cache, description=f"teacher {task}")
        for task, teacher in teachers.items()
    }


def learning_targets(
    labels: LabelsSettings, teachers: Mapping[str, Teacher], cache: Cache
) -> dict[str, Tensor]:
    """The scores that the merged model is to give on the learning images.

    Args:
        teachers: of the seen tasks, with the learning images.

    Returns:
        Task name → N × C: of its teacher; of its teacher with the heads of all these tasks side by
        side (``restrict="none"``, C is the sum of their classes); or 1 for the true class and 0 for
        the others (``ground_truth``).

    Raises:
        UserError: heads that do not fit a teacher of another architecture, or no ground truth.
    """
    if labels.kind == "ground_truth":
        for task, teacher in teachers.items():
            if bool((teacher.images.labels < 0).any()):
                raise UserError(
                    f"labels.kind=ground_truth: learning images of {task} have no label"
                )
        return {
            task: one_hot(teacher.images.labels, len(teacher.zoo.experts[task].head.weight)).float()
            for task, teacher in teachers.items()
        }
    if labels.restrict == "task":
        return teacher_scores(teachers, cache)
    return {
        task: torch.cat([_scores_under(teacher, task, head, cache) for head in teachers], dim=1)
        for task, teacher in teachers.items()
    }


def labelling_passes(labels: LabelsSettings, images: Mapping[str, ImageSplit]) -> int:
    """Images that pass through teachers for ``learning_targets``.

    Args:
        images: seen task → its learning images.
    """
    if labels.kind == "ground_truth":
        return 0
    heads = 1 if labels.restrict == "task" else len(images)
    return heads * sum(map(len, images.values()))


def _scores_under(teacher: Teacher, task: str, head: str, cache: Cache) -> Tensor:
    """Scores of one task's teacher for the classes of another, N × C."""
    if head not in teacher.zoo.experts:
        raise UserError(
            f"labels.restrict=none: the teacher of {task} has another architecture, which heads of "
            "other tasks do not fit; heterogeneous.labels_from=student asks its student"
        )
    return _scores(teacher, task, head, cache, description=f"teacher {task}, classes of {head}")


def _scores(teacher: Teacher, task: str, head: str, cache: Cache, *, description: str) -> Tensor:
    state = teacher.zoo.experts[task].state
    return class_scores(teacher.zoo, state, head, teacher.images, cache, description=description)
