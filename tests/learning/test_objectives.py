"""Objectives against closed forms."""

from __future__ import annotations

import math

import torch

from statsmerging.learning.labels import distillation_loss, entropy
from statsmerging.learning.settings import LabelsSettings

TEACHER = torch.tensor([[2.0, 0.0], [0.0, 0.1]])
STUDENT = torch.tensor([[0.0, 0.0], [1.0, 0.0]])


def test_hard_labels_are_cross_entropy_against_the_arg_max() -> None:
    loss = distillation_loss(STUDENT, TEACHER, LabelsSettings(kind="hard", temperature=7.0))
    expected = (math.log(2) + math.log(1 + math.e)) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)


def test_soft_labels_are_scaled_divergence() -> None:
    tau = 3.0
    teacher = torch.softmax(TEACHER.double() / tau, dim=1)
    student = torch.softmax(STUDENT.double() / tau, dim=1)
    expected = (teacher * (teacher / student).log()).sum(1).mean() * tau**2
    loss = distillation_loss(STUDENT, TEACHER, LabelsSettings(kind="soft", temperature=tau))
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-5)
    same = distillation_loss(TEACHER, TEACHER, LabelsSettings(kind="soft"))
    assert abs(same.item()) < 1e-7


def test_unsure_teachers_are_left_out() -> None:
    sure = LabelsSettings(kind="hard", min_confidence=0.8)
    loss = distillation_loss(STUDENT, TEACHER, sure)
    assert math.isclose(loss.item(), math.log(2), rel_tol=1e-6)
    none = distillation_loss(STUDENT, TEACHER, LabelsSettings(min_confidence=1.0))
    assert none.item() == 0.0


def test_entropy_of_uniform_and_certain_predictions() -> None:
    assert math.isclose(entropy(torch.zeros(3, 5)).item(), math.log(5), rel_tol=1e-6)
    assert entropy(torch.tensor([[100.0, 0.0]])).item() < 1e-6


def test_images_on_which_the_student_is_surer_of_another_class_are_left_out() -> None:
    """The teacher's word counts where both agree, or where it is at least as sure."""
    teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.5, 0.0]])
    student = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 0.5]])
    labels = LabelsSettings(unless_surer=True)
    cross_entropies = [math.log(1 + math.exp(-margin)) for margin in (9.0, -1.0, -0.5)]
    loss = distillation_loss(student, teacher, labels)
    assert math.isclose(loss.item(), sum(cross_entropies) / 3, rel_tol=1e-5)
    assert distillation_loss(student[2:3], teacher[2:3], labels).item() == 0.0
