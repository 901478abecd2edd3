"""``job=merge``: get the zoo, run the methods, score them all, export, show."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from torch import Tensor

from statsmerging.evaluation.candidate import Candidate
from statsmerging.evaluation.teachers import teacher_quality
from statsmerging.jobs.banks import create_bank
from statsmerging.jobs.closing import finish
from statsmerging.jobs.diagnosis import diagnose
from statsmerging.jobs.learning import Learned, LearnedMethod, run_statistics
from statsmerging.jobs.loggers.run_log import RunLog, logged
from statsmerging.jobs.method_settings import parse_methods
from statsmerging.jobs.methods import FixedMethod, Merged, Merger
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench, prepare
from statsmerging.merging.relations import task_vector_cosines
from statsmerging.records.errors import IncompleteError, UserError
from statsmerging.records.layer_tables import write_coefficients, write_statistics
from statsmerging.records.run_directory import RunDirectory
from statsmerging.runs.results import MethodResult
from statsmerging.zoo.checkpoints import write_weights
from statsmerging.zoo.joint import joint_weights
from statsmerging.zoo.settings import FinetunedZooSettings

log = logging.getLogger(__name__)


@dataclass
class _Done:
    """What the methods gave: rows, coefficients, errors, and the last static model."""

    rows: dict[str, MethodResult] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)
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
    bank = create_bank(config, bench, directory)
    merger = Merger(config, bench, bank, directory, run_log)
    bounds = _bounds(config, bench, merger)
    done = _run_methods(bench, merger, methods)
    if done.learned:
        coefficients = {name: learned.coefficients for name, learned in done.learned.items()}
        write_coefficients(directory.coefficients, coefficients, bank.layers, bank.tasks)
        statistics = run_statistics(config, bench, bank, _density(methods))
        write_statistics(
            directory.statistics, statistics.values, statistics.columns, bank.layers, bank.tasks
        )
    if done.static is not None and done.static.state is not None:
        write_weights(directory.merged, done.static.state)
    teachers = teacher_quality(merger.teachers, merger.images) if done.learned else {}
    cosines = task_vector_cosines(bank)
    rows = {**bounds, **done.rows}
    finish(
        config,
        directory,
        run_log,
        bench,
        rows,
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        complete=not done.failed,
        merged=done.static.name if done.static is not None else None,
        failed=done.failed,
        teachers={task: asdict(quality) for task, quality in teachers.items()},
        task_vector_cosines=_by_task(cosines, bank.tasks),
        warnings=diagnose(config, bench, cosines, rows, teachers, done.learned),
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
                if merged.learned is not None:
                    done.learned[merged.name] = merged.learned
        except Exception as error:
            if len(methods) == 1:
                raise
            done.failed[method.name] = f"{type(error).__name__}: {error}"
            log.error("%s failed: %s", method.name, done.failed[method.name])
    return done


def _density(methods: Sequence[LearnedMethod | FixedMethod]) -> float | None:
    """At which the learners saw the task vectors; ``None``, all of them, where they disagree."""
    settings = [method.settings for method in methods if isinstance(method, LearnedMethod)]
    seen = {each.density for each in settings if each.reads_statistics}
    return seen.pop() if len(seen) == 1 else None


def _scored(bench: Workbench, merger: Merger, candidate: Candidate) -> MethodResult:
    return replace(bench.scorer.score(candidate), teacher_agreement=merger.agreement.of(candidate))


def _by_task(matrix: Tensor, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """Task → task → entry of a K × K matrix."""
    return {
        task: dict(zip(tasks, row, strict=True))
        for task, row in zip(tasks, matrix.tolist(), strict=True)
    }


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
