"""All known signs of trouble in one merge run, as lines for log, results and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from statsmerging.evaluation import diagnostics
from statsmerging.evaluation.teachers import TeacherQuality
from statsmerging.jobs.learning import Learned
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench
from statsmerging.records.published import differences, published_rows
from statsmerging.runs.results import BOUNDS, MethodResult


def diagnose(
    config: Config,
    bench: Workbench,
    cosines: Tensor,
    rows: Mapping[str, MethodResult],
    teachers: Mapping[str, TeacherQuality],
    learned: Mapping[str, Learned],
) -> list[str]:
    """One line for everything that looks wrong, but for what the corruption itself explains.

    Args:
        cosines: of the task vectors, K × K.
        rows: of the table, bounds among them.
        teachers: quality of the teachers; empty where nothing was learned.
        learned: method → what it learned.
    """
    individual = rows["individual"]
    lines = [*_experts(config, bench, rows, cosines)]
    if config.corruption.kind == "none" or config.corruption.protocol == "adapt_and_test":
        of_students = config.heterogeneous.labels_from == "student"
        labelled = individual if of_students else rows.get("before_distillation", individual)
        lines += diagnostics.trained_on_learning_images(teachers, labelled)
        lines += diagnostics.unsure_teachers(teachers, labelled)
    for name, result in learned.items():
        kind = result.learner.kind
        if kind in ("shared", "per_layer"):
            lines += diagnostics.uniform_coefficients(
                name, result.coefficients, per_layer=kind == "per_layer"
            )
        lines += diagnostics.vanishing_gradient(name, result.gradient_norm)
    for name, row in rows.items():
        if name in BOUNDS:
            continue
        lines += diagnostics.sacrificed_tasks(name, row, individual)
        lines += diagnostics.generalisation_gap(name, row, individual)
    return lines


def _experts(
    config: Config, bench: Workbench, rows: Mapping[str, MethodResult], cosines: Tensor
) -> Iterator[str]:
    """What is wrong before anything is merged."""
    pretrained, individual = rows["pretrained"], rows["individual"]
    yield from diagnostics.near_identical_experts([t.name for t in bench.suite.seen], cosines)
    yield from diagnostics.weak_students(rows, bench.other_architectures)
    if config.corruption.kind != "none":
        return
    classes = {task: len(expert.head.weight) for task, expert in bench.zoo.experts.items()}
    yield from diagnostics.experts_at_chance(individual, classes)
    yield from diagnostics.weak_experts(pretrained, individual)
    ours = {
        name: {task: cell.accuracy for task, cell in rows[name].accuracies.items()}
        for name in ("pretrained", "individual")
    }
    for cell in differences(ours, published_rows(config.zoo.name, config.backbone.label)):
        yield f"not what was published for these checkpoints: {cell}; job=check tells more"
