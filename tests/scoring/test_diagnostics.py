"""Warnings appear where they should, and only there."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from statsmerging.choices import Granularity, LearnerKind, VectorCoefficients
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.merging import StatsMergeLearner, TaskVectorBank, layer_statistics
from statsmerging.merging.bank import ALL_LAYERS, Coefficient
from statsmerging.merging.direction_learner import DirectionLearner
from statsmerging.merging.directions import direction_statistics
from statsmerging.merging.merged_model import Bank
from statsmerging.merging.spectral import SpectralBank
from statsmerging.runs.results import GridChoice, MethodResult, TaskAccuracy, TriedValue
from statsmerging.scoring.diagnostics import (
    edge_of_the_grid,
    experts_at_chance,
    extreme_coefficients,
    generalisation_gap,
    near_identical_experts,
    sacrificed_tasks,
    trained_on_learning_images,
    uniform_coefficients,
    unsure_teachers,
    vanishing_gradient,
    weak_experts,
    weak_students,
)
from statsmerging.scoring.scores import TeacherQuality, teacher_quality
from tests.scoring.conftest import unlabeled


def result(**accuracies: float) -> MethodResult:
    return MethodResult({task: TaskAccuracy(value, 400) for task, value in accuracies.items()})


@pytest.mark.parametrize(("expert", "warned"), [(0.10, True), (0.58, False), (0.9, False)])
def test_an_expert_below_its_start_is_named(expert: float, warned: bool) -> None:
    found = list(weak_experts(result(mnist=0.6, svhn=0.3), result(mnist=expert, svhn=0.9)))
    assert len(found) == warned
    assert all("expert of mnist" in line for line in found)


def test_an_expert_that_guesses_is_named() -> None:
    """n = 400, ten classes: chance is 10 %, three standard errors more are 14.5 %."""
    for accuracy, warned in ((0.02, True), (0.14, True), (0.15, False), (0.9, False)):
        assert bool(list(experts_at_chance(result(mnist=accuracy), {"mnist": 10}))) == warned


@pytest.mark.parametrize(
    ("right", "images", "classes", "warned"),
    [
        (4, 4, 2, False),  # two classes: four of four may be luck
        (0, 8, 2, False),
        (9, 10, 2, False),  # luck is possible, but nothing speaks for it
        (5, 10, 2, True),
        (5, 6, 1, False),  # one class: nothing to guess
        (1, 20, 10, True),
        (20, 40, 2, True),
    ],
)
def test_few_images_call_no_expert_a_guesser(
    right: int, images: int, classes: int, warned: bool
) -> None:
    expert = MethodResult({"mnist": TaskAccuracy(right / images, images)})
    assert bool(list(experts_at_chance(expert, {"mnist": classes}))) == warned


def test_the_threshold_is_three_standard_errors() -> None:
    """n = 400 twice at p = ½: one standard error is √(¼ · 2/400) = 0.0354."""
    for gap, warned in ((0.10, False), (0.11, True)):
        found = list(weak_experts(result(a=0.5 + gap / 2), result(a=0.5 - gap / 2)))
        assert bool(found) == warned


@pytest.mark.parametrize(("student", "warned"), [(0.70, True), (0.85, False), (0.95, False)])
def test_a_student_below_its_teacher_is_named(student: float, warned: bool) -> None:
    """n = 400 twice around p = 0.85: three standard errors are 7.6 points."""
    bounds = {
        "individual": result(mnist=student, svhn=0.1),
        "before_distillation": result(mnist=0.9, svhn=0.9),
    }
    found = list(weak_students(bounds, {"mnist": "resnet20"}))
    assert len(found) == warned
    assert all("student of mnist" in line and "(resnet20) on 90.0%" in line for line in found)


@pytest.mark.parametrize(("agreement", "warned"), [(1.0, True), (0.79, False), (0.7, False)])
def test_a_teacher_that_knows_the_learning_images_is_named(agreement: float, warned: bool) -> None:
    teachers = {"dtd": TeacherQuality(agreement, 0.9, 400)}
    assert bool(list(trained_on_learning_images(teachers, result(dtd=0.78)))) == warned


def test_perfect_scores_on_both_are_no_excess() -> None:
    teachers = {"mnist": TeacherQuality(1.0, 1.0, 10)}
    assert not list(trained_on_learning_images(teachers, result(mnist=1.0)))


def test_a_teacher_on_images_without_labels_is_right_on_an_unknown_share() -> None:
    split = unlabeled(4, 8)
    split.labels.copy_(torch.tensor([0, 1, -1, 1]))
    teachers = teacher_quality({"task": torch.eye(4)[:, :2]}, {"task": split})
    assert teachers["task"].label_agreement is None
    assert not list(trained_on_learning_images(teachers, result(task=0.1)))


def test_quality_counts_right_classes_and_confidence() -> None:
    split = unlabeled(4, 8)
    split.labels.copy_(torch.tensor([0, 1, 1, 1]))
    scores = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [0.0, 0.0]])
    quality = teacher_quality({"task": scores}, {"task": split})["task"]
    sure = 1 / (1 + torch.exp(torch.tensor(-9.0)).item())
    assert quality.label_agreement == pytest.approx(0.5)  # right, right, wrong, wrong: a tie is 0
    assert quality.confidence == pytest.approx((3 * sure + 0.5) / 4)
    assert quality.images == 4


@pytest.mark.parametrize(("confidence", "warned"), [(0.4, True), (0.7, False), (1.0, False)])
def test_a_teacher_that_is_unsure_is_named(confidence: float, warned: bool) -> None:
    teachers = {"dtd": TeacherQuality(0.5, confidence, 400)}
    assert bool(list(unsure_teachers(teachers, result(dtd=0.8)))) == warned


def test_noise_for_a_teacher_shows_in_its_confidence() -> None:
    """A teacher of two far classes, given noise between them."""
    noise = unlabeled(50, 8)
    scores = 0.2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    teachers = teacher_quality({"dtd": scores}, {"dtd": noise})
    assert list(unsure_teachers(teachers, result(dtd=1.0)))


def test_near_identical_experts_are_named_in_pairs() -> None:
    cosines = torch.tensor([[1.0, 0.2, 0.999], [0.2, 1.0, 0.3], [0.999, 0.3, 1.0]])
    (line,) = near_identical_experts(["a", "b", "c"], cosines)
    assert "a and c" in line


def table(values: torch.Tensor) -> list[Coefficient]:
    """Coefficients of layers (rows) and tasks (columns)."""
    return [
        Coefficient(f"layer {row}", f"task {column}", value)
        for row, line in enumerate(values.tolist())
        for column, value in enumerate(line)
    ]


def test_coefficients_that_do_not_differ_are_named() -> None:
    for values, warned in (
        (torch.full((3, 2), 0.3), True),
        (torch.tensor([[0.3, 0.31]]), False),
        (torch.tensor([[0.3]]), False),  # of one task: nothing to differ from
    ):
        found = uniform_coefficients("ours", table(values), of=None, per_layer=False)
        assert bool(list(found)) == warned


@pytest.mark.parametrize("granularity", ["layer_wise", "task_wise"])
def test_a_learner_per_layer_that_ignores_its_input_is_named(
    bank: TaskVectorBank, granularity: Granularity
) -> None:
    """Its biases set layers apart; output weights of zero leave the statistics no influence."""
    generator = torch.Generator().manual_seed(0)
    learner = StatsMergeLearner(
        layer_statistics(bank), granularity, kind="per_layer", generator=generator
    )

    def found() -> list[str]:
        coefficients = bank.listed(learner().detach())
        return list(uniform_coefficients("ours", coefficients, of=None, per_layer=True))

    for name, weight in learner.named_parameters():
        if name.endswith("output_bias"):
            weight.data = 0.1 * torch.arange(float(weight.numel())).reshape(weight.shape)
    assert found()
    for name, weight in learner.named_parameters():
        if name.endswith("output_weight"):
            weight.data.normal_(generator=generator)
    assert not found()


@pytest.mark.parametrize("kind", ["shared", "per_layer"])
@pytest.mark.parametrize("vectors", get_args(VectorCoefficients))
@pytest.mark.parametrize("spectral", [True, False])
def test_only_what_the_network_gives_tells_whether_it_ignores_its_input(
    bank: TaskVectorBank, kind: LearnerKind, vectors: VectorCoefficients, spectral: bool
) -> None:
    """Biases start elsewhere among directions, and may come from a table, or stay at a mean."""
    generator = torch.Generator().manual_seed(0)
    merged: Bank = SpectralBank.from_bank(bank) if spectral else bank
    learner: StatsMergeLearner | DirectionLearner
    if isinstance(merged, SpectralBank):
        statistics = direction_statistics(merged)
        learner = DirectionLearner(statistics, kind=kind, vectors=vectors, generator=generator)
    else:
        learner = StatsMergeLearner(
            layer_statistics(bank), "layer_wise", kind=kind, vectors=vectors, generator=generator
        )

    def found() -> list[str]:
        learned = LearnedCoefficients(learner, merged, learner().detach(), gradient_norm=1.0)
        given, of = learned.from_network()
        per_layer = kind == "per_layer"
        return list(uniform_coefficients("ours", given, of=of, per_layer=per_layer))

    for name, weight in learner.named_parameters():
        if name.endswith(("output_bias", "vector_table")):
            weight.data.normal_(generator=generator)
    (line,) = found()
    everything = vectors == "learned" and not spectral
    assert ("of vectors" in line) == (vectors == "only")
    assert ("of matrices" in line) == (vectors != "only" and not everything)
    for name, weight in learner.named_parameters():
        if name.endswith("output_weight"):
            weight.data.normal_(generator=generator)
    assert not found()


def test_coefficients_that_are_no_merging_are_named() -> None:
    coefficients = [
        Coefficient("fc", "a", 5.0),
        Coefficient("fc", "b", -5.1),
        Coefficient("norm", "a", 18.26),
        Coefficient("norm", "b", -42.04),
    ]
    (line,) = extreme_coefficients("free", coefficients, {"norm"})
    assert line.startswith(
        "free: 3 of 4 coefficients are beyond ±5 (1 of matrices and 2 of vectors)"
    )
    assert "the largest is -42.0 (b, norm)" in line
    assert not list(extreme_coefficients("free", coefficients[:1], {"norm"}))


def test_a_coefficient_of_all_layers_is_of_no_kind() -> None:
    (line,) = extreme_coefficients("free", [Coefficient(ALL_LAYERS, "a", 6.0)], {"norm"})
    assert "1 of 1 coefficients are beyond ±5 (1 of all layers)" in line


def test_a_gradient_of_nothing_is_named() -> None:
    assert list(vanishing_gradient("free", 0.0))
    assert not list(vanishing_gradient("free", 1e-3))


@pytest.mark.parametrize("at_edge", [True, False])
def test_a_choice_at_the_edge_of_its_grid_is_named(at_edge: bool) -> None:
    tried = [TriedValue(value=0.5), TriedValue(value=1.0)]
    choice = GridChoice(
        parameter="scale", rule="agreement", value=0.5, at_edge=at_edge, tried=tried
    )
    row = replace(result(mnist=0.5), choice=choice)
    lines = list(edge_of_the_grid("ties_tuned", row))
    assert len(lines) == at_edge
    assert all("scale=0.5" in line and "`tune`" in line for line in lines)
    assert list(edge_of_the_grid("ties", result(mnist=0.5))) == []


def test_a_task_below_half_its_expert_is_named() -> None:
    (line,) = sacrificed_tasks("ties", result(a=0.39, b=0.41), result(a=0.8, b=0.8))
    assert "a (49 %)" in line
    assert "b" not in line.split(":")[0].replace("ties sacrifices", "")


def test_a_gap_between_seen_and_unseen_tasks_is_named() -> None:
    individual = MethodResult({"a": TaskAccuracy(0.9, 9)}, {"b": TaskAccuracy(0.9, 9)})
    far = MethodResult({"a": TaskAccuracy(0.9, 9)}, {"b": TaskAccuracy(0.5, 9)})
    assert list(generalisation_gap("free", far, individual))
    assert not list(generalisation_gap("free", individual, individual))
    assert not list(generalisation_gap("free", result(a=0.9), result(a=0.9)))
