"""``job=merge``: get the experts, merge them by every method, score all models, export, show."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from statsmerging.errors import IncompleteError, UserError
from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
from statsmerging.learning.diagnosis import diagnose
from statsmerging.learning.joint import joint_weights
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.mergeable import run_statistics
from statsmerging.learning.merged import Merged
from statsmerging.learning.merger import Merger
from statsmerging.learning.problem import MergingProblem
from statsmerging.merging.relations import task_vector_cosines
from statsmerging.runs.layer_tables import write_coefficients, write_statistics
from statsmerging.runs.results import MethodResult
from statsmerging.scoring.scores import Candidate, teacher_quality
from statsmerging.zoo.settings import FinetunedZooSettings
from statsmerging.zoo.weights import write_weights

if TYPE_CHECKING:
    from statsmerging.app.setup import ScoredRun

log = logging.getLogger(__name__)


@dataclass
class _Outcome:
    """Of all methods: rows, learned coefficients, errors, and the last static model."""

    rows: dict[str, MethodResult] = field(default_factory=dict)
    learned: dict[str, LearnedCoefficients] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    static: Merged | None = None


def merge(run: ScoredRun) -> None:
    """Merge the experts of the suite's seen tasks by every method and compare them.

    ``merged.safetensors`` holds the model of the last method that gives a static one.

    Raises:
        IncompleteError: a method failed; the others have their rows.
    """
    config, directory = run.config, run.directory
    methods = run.methods

    # Images and experts; task vectors; the rows between which the methods are expected.
    problem = run.prepare()
    merger = Merger(config, problem, directory.path, directory.checkpoints, run.run_log.curves)
    bank = merger.bank
    bounds = _bounds(run, problem, merger)

    # Statistics → coefficients → merged model → accuracy, method by method.
    outcome = _merge_and_score(problem, merger, methods)

    # What was learned, and the merged model.
    if outcome.learned:
        coefficients = {name: learned.listed() for name, learned in outcome.learned.items()}
        write_coefficients(directory.coefficients, coefficients)
        statistics = run_statistics(config, problem, bank, _shared_density(methods))
        write_statistics(
            directory.statistics, statistics.values, statistics.columns, bank.layers, bank.tasks
        )
    if outcome.static is not None and outcome.static.state is not None:
        write_weights(directory.merged, outcome.static.state)

    # Signs of trouble, and the record.
    teachers = teacher_quality(merger.teachers, merger.images) if outcome.learned else {}
    cosines = task_vector_cosines(bank)
    rows = {**bounds, **outcome.rows}
    run.finish(
        problem,
        rows,
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        complete=not outcome.failed,
        merged=outcome.static.name if outcome.static is not None else None,
        failed=outcome.failed,
        held_out=merger.held_out,
        teachers={task: asdict(quality) for task, quality in teachers.items()},
        task_vector_cosines={
            task: dict(zip(bank.tasks, row, strict=True))
            for task, row in zip(bank.tasks, cosines.tolist(), strict=True)
        },
        warnings=diagnose(config, problem, cosines, rows, teachers, outcome.learned),
    )
    if outcome.failed:
        names = ", ".join(outcome.failed)
        raise IncompleteError(f"{len(outcome.failed)} of {len(methods)} methods failed: {names}")


def _bounds(run: ScoredRun, problem: MergingProblem, merger: Merger) -> dict[str, MethodResult]:
    """Pre-trained and individual models, and the jointly trained one where it is asked for."""
    bounds = problem.bounds()
    pretrained = Candidate.of_state("pre-trained", problem.zoo, problem.zoo.pretrained)
    agreement = merger.agreement.of(pretrained)
    bounds["pretrained"] = replace(bounds["pretrained"], teacher_agreement=agreement)
    if run.config.joint:
        if not isinstance(run.config.zoo, FinetunedZooSettings):
            raise UserError("joint=true: only with zoo=finetuned, whose training settings it takes")
        weights = joint_weights(
            problem.zoo,
            {task.name: problem.images.split(task, "train") for task in problem.suite.seen},
            run.config.zoo.finetuning,
            cache=problem.cache,
            accelerator=run.config.accelerator,
        )
        joint = Candidate.of_state("jointly trained", problem.zoo, weights)
        bounds["joint"] = _scored(problem, merger, joint)
    return bounds


def _merge_and_score(
    problem: MergingProblem, merger: Merger, methods: Sequence[LearnedMethod | FixedMethod]
) -> _Outcome:
    """Run and score all methods; one that fails leaves the others their rows."""
    outcome = _Outcome()
    for number, method in enumerate(methods, start=1):
        log.info("method %d of %d: %s", number, len(methods), method.name)
        try:
            for merged in merger.rows(method):
                meter = merger.meter()
                with meter.phase("scoring"):
                    result = _scored(problem, merger, merged.candidate)
                expense = merged.expense + meter.expense
                outcome.rows[merged.name] = merged.row(result, expense)
                if merged.state is not None:
                    outcome.static = merged
                if merged.learned is not None:
                    outcome.learned[merged.name] = merged.learned
        except Exception as error:
            if len(methods) == 1:
                raise
            outcome.failed[method.name] = f"{type(error).__name__}: {error}"
            log.error("%s failed: %s", method.name, outcome.failed[method.name])
    return outcome


def _scored(problem: MergingProblem, merger: Merger, candidate: Candidate) -> MethodResult:
    """Accuracies on the test images, and agreement with the teachers on unlabeled ones."""
    result = problem.scorer.score(candidate)
    return replace(result, teacher_agreement=merger.agreement.of(candidate))


def _shared_density(methods: Sequence[LearnedMethod | FixedMethod]) -> float | None:
    """The density shared by all learners, or ``None`` if they use different ones."""
    settings = [method.settings for method in methods if isinstance(method, LearnedMethod)]
    densities = {each.density for each in settings if each.reads_statistics}
    return densities.pop() if len(densities) == 1 else None
