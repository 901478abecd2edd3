"""``job=merge``: get the zoo, run the methods, score them all, export, show."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from statsmerging.evaluation.candidate import Candidate
from statsmerging.evaluation.diagnostics import (
    experts_at_chance,
    trained_on_learning_images,
    weak_experts,
    weak_students,
)
from statsmerging.evaluation.teachers import TeacherQuality, teacher_quality
from statsmerging.jobs.closing import finish
from statsmerging.jobs.loggers.run_log import RunLog, logged
from statsmerging.jobs.method_settings import parse_methods
from statsmerging.jobs.methods import FixedMethod, LearnedMethod, Merged, Merger
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench, prepare
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.coefficients import write_coefficients
from statsmerging.records.errors import IncompleteError, UserError
from statsmerging.records.results import MethodResult
from statsmerging.records.run_directory import RunDirectory
from statsmerging.zoo.checkpoints import write_weights
from statsmerging.zoo.joint import joint_weights
from statsmerging.zoo.settings import FinetunedZooSettings

log = logging.getLogger(__name__)


@dataclass
class _Done:
    """What the methods gave: rows, coefficients, errors, and the last static model."""

    rows: dict[str, MethodResult] = field(default_factory=dict)
    learned: dict[str, Tensor] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    static: Merged | None = None


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Merge the experts of the suite's seen tasks by every method and compare them.

    ``merged.safetensors`` holds the model of the last method that gives a static one.

    Raises:
        IncompleteError: a method failed; the others have their rows.
    """
    methods = parse_methods(config.method)
    bench = prepare(config)
    bank = _bank(config, bench, directory)
    merger = Merger(config, bench, bank, directory, run_log)
    bounds = _bounds(config, bench, merger)
    done = _run_methods(bench, merger, methods)
    if done.learned:
        write_coefficients(directory.coefficients, done.learned, bank.layers, bank.tasks)
    if done.static is not None and done.static.state is not None:
        write_weights(directory.merged, done.static.state)
    teachers = teacher_quality(merger.teachers, merger.images) if done.learned else {}
    classes = {task: len(expert.head.weight) for task, expert in bench.zoo.experts.items()}
    warnings = [
        *weak_students(bounds, bench.other_architectures),
        *_warnings(config, bounds, teachers, classes),
    ]
    for line in warnings:
        log.warning("%s", line)
    finish(
        config,
        directory,
        run_log,
        bench,
        {**bounds, **done.rows},
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        complete=not done.failed,
        merged=done.static.name if done.static is not None else None,
        failed=done.failed,
        teachers={task: asdict(quality) for task, quality in teachers.items()},
        warnings=warnings,
    )
    if done.failed:
        names = ", ".join(done.failed)
        raise IncompleteError(f"{len(done.failed)} of {len(methods)} methods failed: {names}")


def _bounds(config: Config, bench: Workbench, merger: Merger) -> dict[str, MethodResult]:
    """The rows between which the methods are expected."""
    bounds = bench.bounds()
    pretrained = Candidate.of_state("pre-trained", bench.zoo, bench.zoo.pretrained)
    agreement = merger.agreement.of(pretrained)
    bounds["pretrained"] = replace(bounds["pretrained"], teacher_agreement=agreement)
    if config.joint:
        bounds["joint"] = _scored(bench, merger, _joint(config, bench))
    return bounds


def _run_methods(
    bench: Workbench, merger: Merger, methods: Sequence[LearnedMethod | FixedMethod]
) -> _Done:
    """Run and score all methods; one that fails leaves the others their rows."""
    done = _Done()
    for number, method in enumerate(methods, start=1):
        log.info("method %d of %d: %s", number, len(methods), method.name)
        try:
            for merged in merger.rows(method):
                result = _scored(bench, merger, merged.candidate)
                done.rows[merged.name] = replace(result, about=merged.about)
                if merged.state is not None:
                    done.static = merged
                if merged.coefficients is not None:
                    done.learned[merged.name] = merged.coefficients
        except Exception as error:
            if len(methods) == 1:
                raise
            done.failed[method.name] = f"{type(error).__name__}: {error}"
            log.error("%s failed: %s", method.name, done.failed[method.name])
    return done


def _scored(bench: Workbench, merger: Merger, candidate: Candidate) -> MethodResult:
    return replace(bench.scorer.score(candidate), teacher_agreement=merger.agreement.of(candidate))


def _warnings(
    config: Config,
    bounds: Mapping[str, MethodResult],
    teachers: Mapping[str, TeacherQuality],
    classes: Mapping[str, int],
) -> list[str]:
    """Signs of a mistake, but for those that the corruption itself gives."""
    pretrained, individual = bounds["pretrained"], bounds["individual"]
    corruption = config.corruption
    lines: list[str] = []
    if corruption.kind == "none":
        lines += experts_at_chance(individual, classes)
        lines += weak_experts(pretrained, individual)
    if corruption.kind == "none" or corruption.protocol == "adapt_and_test":
        of_students = config.heterogeneous.labels_from == "student"
        labelled = individual if of_students else bounds.get("before_distillation", individual)
        lines += trained_on_learning_images(teachers, labelled)
    return lines


def _joint(config: Config, bench: Workbench) -> Candidate:
    """One network trained on all seen tasks with their labels."""
    if not isinstance(config.zoo, FinetunedZooSettings):
        raise UserError("joint=true: only with zoo=finetuned, whose training settings it takes")
    weights = joint_weights(
        bench.zoo,
        {task.name: bench.images.split(task, "train") for task in bench.suite.seen},
        config.zoo.finetuning,
        cache=bench.cache,
        accelerator=config.accelerator,
    )
    return Candidate.of_state("jointly trained", bench.zoo, weights)


def _bank(config: Config, bench: Workbench, directory: RunDirectory) -> TaskVectorBank:
    """Task vectors of the seen tasks' experts, where the config wants them."""
    memory_map = directory.path / "task_vectors.bin" if config.merge.memory_map else None
    bank = TaskVectorBank.from_state_dicts(
        bench.zoo.pretrained,
        {task.name: bench.zoo.experts[task.name].state for task in bench.suite.seen},
        dtype=getattr(torch, config.merge.precision),
        device="cpu" if memory_map else bench.zoo.device,
        memory_map=memory_map,
    )
    if memory_map is not None:
        memory_map.unlink()  # the mapping lives as long as the process, the file needs no name
    return bank
