"""Known signs that a comparison is not what it seems, as warnings for log and results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from statsmerging.evaluation.teachers import TeacherQuality
from statsmerging.records.results import MethodResult, TaskAccuracy

#: A difference of two accuracies counts from this many standard errors on.
SIGNIFICANT = 3.0


def experts_at_chance(individual: MethodResult, classes: Mapping[str, int]) -> Iterator[str]:
    """Experts that are not better than guessing.

    Args:
        classes: task → number of its classes.
    """
    for task, expert in individual.accuracies.items():
        chance = 1 / classes[task]
        error = math.sqrt(chance * (1 - chance) / expert.images)
        if expert.accuracy < chance + SIGNIFICANT * error:
            yield (
                f"the expert of {task} is right on {expert.accuracy:.1%} of the test images, "
                f"guessing on {chance:.1%}: usually the order of the classes, or a head of another "
                "model; job=check tells more"
            )


def weak_experts(pretrained: MethodResult, individual: MethodResult) -> Iterator[str]:
    """Experts that are worse than the model they were fine-tuned from."""
    start = pretrained.accuracies
    for task, expert in individual.accuracies.items():
        if _excess(start[task], expert) > SIGNIFICANT:
            yield (
                f"the expert of {task} is right on {expert.accuracy:.1%} of the test images, the "
                f"pre-trained model on {start[task].accuracy:.1%}: usually another "
                "preprocessing or another base model; job=check tells more"
            )


def weak_students(
    bounds: Mapping[str, MethodResult], architectures: Mapping[str, str]
) -> Iterator[str]:
    """Distilled students that are worse than their teachers.

    Args:
        bounds: rows ``individual``, with the students, and ``before_distillation``, with the
            teachers, where anything was distilled.
        architectures: distilled task → architecture of its teacher.
    """
    for task, architecture in architectures.items():
        teacher, student = bounds["before_distillation"].seen[task], bounds["individual"].seen[task]
        if _excess(teacher, student) > SIGNIFICANT:
            yield (
                f"the distilled student of {task} is right on {student.accuracy:.1%} of the test "
                f"images, its teacher ({architecture}) on {teacher.accuracy:.1%}: the backbone is "
                "too small for it, or it needs more images or steps (heterogeneous.distillation)"
            )


def trained_on_learning_images(
    teachers: Mapping[str, TeacherQuality], individual: MethodResult
) -> Iterator[str]:
    """Teachers that know the learning images' labels better than they know those of test images."""
    for task, teacher in teachers.items():
        test = individual.seen[task]
        learning = TaskAccuracy(teacher.label_agreement, teacher.images)
        if _excess(learning, test) > SIGNIFICANT:
            yield (
                f"the teacher of {task} is right on {learning.accuracy:.1%} of the learning images "
                f"and {test.accuracy:.1%} of the test images: it was trained on the former, or "
                "they are easier; its labels are better than on images it never saw"
            )


def _excess(first: TaskAccuracy, second: TaskAccuracy) -> float:
    """How far the first accuracy is above the second, in standard errors of their difference."""
    images = first.images + second.images
    pooled = (first.accuracy * first.images + second.accuracy * second.images) / images
    error = math.sqrt(pooled * (1 - pooled) * (1 / first.images + 1 / second.images))
    return (first.accuracy - second.accuracy) / error if error else 0.0
