"""Warnings of a run: every known sign of trouble, for log, results and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.problem import MergingProblem
from statsmerging.learning.settings import MergingSettings
from statsmerging.runs.published import deviations, published_rows
from statsmerging.runs.results import BOUNDS, MethodResult
from statsmerging.scoring import diagnostics
from statsmerging.scoring.scores import TeacherQuality


def diagnose(
    settings: MergingSettings,
    problem: MergingProblem,
    cosines: Tensor,
    rows: Mapping[str, MethodResult],
    teachers: Mapping[str, TeacherQuality],
    learned: Mapping[str, LearnedCoefficients],
) -> list[str]:
    """One line per sign of trouble, except those that a corruption explains.

    Args:
        cosines: of the task vectors, K × K.
        rows: of the table, bounds among them.
        teachers: quality of the teachers; empty where nothing was learned.
        learned: method → what it learned.
    """
    individual = rows["individual"]
    lines = [*_experts(settings, problem, rows, cosines)]
    if settings.corruption.kind == "none" or settings.corruption.protocol == "adapt_and_test":
        of_students = settings.heterogeneous.labels_from == "student"
        labelled = individual if of_students else rows.get("before_distillation", individual)
        lines += diagnostics.trained_on_learning_images(teachers, labelled)
        lines += diagnostics.unsure_teachers(teachers, labelled)
    for name, result in learned.items():
        kind = result.learner.kind
        if kind in ("shared", "per_layer"):
            given, of = result.from_network()
            lines += diagnostics.uniform_coefficients(
                name, given, of=of, per_layer=kind == "per_layer"
            )
        lines += diagnostics.extreme_coefficients(name, result.listed(), result.bank.vector_layers)
        lines += diagnostics.vanishing_gradient(name, result.gradient_norm)
    for name, row in rows.items():
        if name in BOUNDS:
            continue
        lines += diagnostics.edge_of_the_grid(name, row)
        lines += diagnostics.sacrificed_tasks(name, row, individual)
        lines += diagnostics.generalisation_gap(name, row, individual)
    return lines


def _experts(
    settings: MergingSettings,
    problem: MergingProblem,
    rows: Mapping[str, MethodResult],
    cosines: Tensor,
) -> Iterator[str]:
    """Warnings about the experts, before anything is merged."""
    pretrained, individual = rows["pretrained"], rows["individual"]
    yield from diagnostics.near_identical_experts([t.name for t in problem.suite.seen], cosines)
    if settings.merge.running_statistics == "averaged":
        yield from diagnostics.averaged_running_statistics(problem.moved_statistics)
    yield from diagnostics.weak_students(rows, problem.heterogeneous_architectures)
    if settings.corruption.kind != "none":
        return
    classes = {task: len(expert.head.weight) for task, expert in problem.zoo.experts.items()}
    yield from diagnostics.experts_at_chance(individual, classes)
    yield from diagnostics.weak_experts(pretrained, individual)
    ours = {
        name: {task: cell.accuracy for task, cell in rows[name].accuracies.items()}
        for name in ("pretrained", "individual")
    }
    for cell in deviations(ours, published_rows(settings.zoo.kind, settings.backbone.label)):
        yield f"not what was published for these checkpoints: {cell}; job=check tells more"
