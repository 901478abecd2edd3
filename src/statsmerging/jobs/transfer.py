"""``job=transfer``: a learner trained on some experts predicts coefficients for others.

A learner of statistics can do that, a table of free coefficients cannot. The learner learns on the
experts of the seen tasks; those of the unseen tasks are merged with the coefficients that it
predicts for them, without any of their images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from statsmerging.errors import UserError
from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
from statsmerging.learning.cost import Expense
from statsmerging.learning.diagnosis import diagnose
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.merged import Merged, StateDict
from statsmerging.learning.merger import Merger
from statsmerging.merging.bank import Coefficient
from statsmerging.merging.relations import task_vector_cosines
from statsmerging.runs.layer_tables import write_coefficients
from statsmerging.runs.results import ANEW, MethodResult
from statsmerging.scoring.diagnostics import near_identical_experts
from statsmerging.scoring.scores import Candidate, teacher_quality

if TYPE_CHECKING:
    from statsmerging.app.setup import ScoredRun


@dataclass
class _Outcome:
    """Of all methods: rows, coefficients for the experts of all tasks, and learners."""

    rows: dict[str, MethodResult]
    coefficients: dict[str, list[Coefficient]] = field(default_factory=dict)
    learned: dict[str, LearnedCoefficients] = field(default_factory=dict)


def transfer(run: ScoredRun) -> None:
    """Score every method on both sets of experts.

    In the table, columns of seen tasks are those of the merged seen experts, columns of unseen
    tasks those of the merged unseen experts. A method that learns has two rows: with predicted
    coefficients for the unseen experts, and with coefficients learned anew from their images. Any
    other method with a grid has a second row: the value that agrees most with the teachers of the
    seen tasks is carried over to the unseen experts.

    Raises:
        UserError: fewer than two unseen tasks, a method that has no place here, or running
            statistics that need images.
    """
    config, directory = run.config, run.directory
    methods = run.methods
    _check(methods)
    if config.merge.running_statistics != "averaged":
        raise UserError(
            f"merge.running_statistics={config.merge.running_statistics}: job=transfer merges "
            "unseen experts without any of their images; choose averaged"
        )
    problem = run.prepare()
    if len(problem.suite.unseen) < 2:
        raise UserError(
            "job=transfer merges the experts of at least two unseen tasks: suite.split or "
            "suite.unseen names them"
        )
    seen, unseen = (
        Merger(config, side, directory.path, directory.checkpoints, run.run_log.curves)
        for side in (problem, problem.with_roles_swapped())
    )
    outcome = _Outcome(problem.bounds())
    for method in methods:
        if isinstance(method, LearnedMethod):
            _learned_rows(method, seen, unseen, outcome)
        else:
            _fixed_rows(method, seen, unseen, outcome)
    if outcome.coefficients:
        write_coefficients(directory.coefficients, outcome.coefficients)
    teachers = teacher_quality(seen.teachers, seen.images)
    cosines = task_vector_cosines(seen.bank)
    unseen_cosines = task_vector_cosines(unseen.bank)
    run.finish(
        problem,
        outcome.rows,
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        held_out=seen.held_out,
        teachers={task: asdict(quality) for task, quality in teachers.items()},
        warnings=[
            *diagnose(config, problem, cosines, outcome.rows, teachers, outcome.learned),
            *near_identical_experts(unseen.bank.tasks, unseen_cosines),
        ],
    )


def _check(methods: Sequence[LearnedMethod | FixedMethod]) -> None:
    """Refuse methods that would fail, or be left out, after everything was learned.

    Raises:
        UserError: a method that gives no single model, whose learner is of one set of experts, or
            whose learning rate is to be tuned.
    """
    for method in methods:
        if isinstance(method, FixedMethod):
            if method.method.returns != "state dict":
                raise UserError(
                    f"method {method.name}: job=transfer needs methods that give one model"
                )
        elif method.settings.learner == "released_code":
            raise UserError(
                f"method {method.name}: job=transfer needs statistics of single experts, or none"
            )
        elif method.settings.trains != "coefficients":
            raise UserError(f"method {method.name}: job=transfer needs frozen heads")
        elif method.settings.tune is not None:
            raise UserError(
                f"method.{method.name}.tune: job=transfer tunes no learning rate; use null"
            )


def _fixed_rows(method: FixedMethod, seen: Merger, unseen: Merger, outcome: _Outcome) -> None:
    """Rows of a method that learns nothing: as configured and, if it has a grid, tuned."""
    here, there = seen.as_configured(method), unseen.as_configured(method)
    outcome.rows[method.name] = _score(seen, here, _state(there), there.expense)
    tuned = seen.tuned(method, here)
    if tuned is not None:
        there = unseen.as_configured(tuned.method)
        name = tuned.merged.name
        outcome.rows[name] = _score(seen, tuned.merged, _state(there), there.expense)


def _learned_rows(method: LearnedMethod, seen: Merger, unseen: Merger, outcome: _Outcome) -> None:
    """Rows of a method that learns: predicted, where its learner can, and learned anew."""
    here = seen.as_configured(method)
    # Episodes are for predictions: what is learned for these very experts merges them all.
    whole = method.settings.model_copy(update={"episodes": None})
    anew = unseen.as_configured(LearnedMethod(f"{method.name}{ANEW}", whole))
    assert here.learned is not None
    assert anew.learned is not None
    outcome.learned |= {method.name: here.learned, anew.name: anew.learned}
    learned = here.learned.listed()
    if here.learned.predicts:
        there, shared = unseen.mergeable(method)
        meter = unseen.meter()
        with meter.phase("merging"):
            predicted = here.learned.predict(there.statistics)
            state = there.bank.merge(predicted, method.settings.anchor)
        title = f"{method.settings.title}, predicted"
        expense = shared + meter.expense
        outcome.rows[method.name] = _score(seen, _titled(here, title), state, expense)
        outcome.coefficients[method.name] = [*learned, *there.bank.listed(predicted)]
    title = f"{method.settings.title}, learned anew"
    outcome.rows[anew.name] = _score(seen, _titled(here, title), _state(anew), anew.expense)
    outcome.coefficients[anew.name] = [*learned, *anew.learned.listed()]


def _titled(merged: Merged, title: str) -> Merged:
    return replace(merged, about={**merged.about, "title": title})


def _score(seen: Merger, merged: Merged, unseen: StateDict, of_unseen: Expense) -> MethodResult:
    """Seen tasks with the merged seen experts, unseen tasks with the merged unseen ones.

    Args:
        of_unseen: the work on the unseen experts; the row tells it together with the seen ones'.
    """
    problem = seen.problem
    states = {task.name: _state(merged) for task in problem.suite.seen}
    states |= {task.name: unseen for task in problem.suite.unseen}
    candidate = Candidate(str(merged.about["title"]), problem.zoo, states, keep=False)
    agreement_of, meter = seen.agreement, seen.meter()
    with meter.phase("scoring"):
        result = problem.scorer.score(candidate)
        agreement = agreement_of.of(candidate)
    expense = merged.expense + of_unseen + meter.expense
    return merged.row(replace(result, teacher_agreement=agreement), expense)


def _state(merged: Merged) -> StateDict:
    assert merged.state is not None  # _check has refused the others
    return merged.state
