"""``job=transfer``: a learner trained on some experts predicts coefficients for others.

That is what a learner of statistics can do and a table of free coefficients cannot. The experts of
the seen tasks teach the learner; those of the unseen tasks are merged with what it predicts for
them, without an image of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from statsmerging.evaluation.candidate import Candidate
from statsmerging.evaluation.diagnostics import near_identical_experts
from statsmerging.evaluation.teachers import teacher_quality
from statsmerging.jobs.banks import at_density, create_bank
from statsmerging.jobs.closing import finish
from statsmerging.jobs.diagnosis import diagnose
from statsmerging.jobs.learning import Learned, LearnedMethod, run_statistics
from statsmerging.jobs.loggers.run_log import RunLog, logged
from statsmerging.jobs.method_settings import parse_methods
from statsmerging.jobs.methods import FixedMethod, Merged, Merger, State
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import prepare
from statsmerging.merging.relations import task_vector_cosines
from statsmerging.records.errors import UserError
from statsmerging.records.layer_tables import write_coefficients
from statsmerging.records.run_directory import RunDirectory
from statsmerging.runs.results import ANEW, MethodResult


@dataclass
class _Done:
    """What the methods gave: rows, coefficients for the experts of all tasks, and learners."""

    rows: dict[str, MethodResult]
    coefficients: dict[str, Tensor] = field(default_factory=dict)
    learned: dict[str, Learned] = field(default_factory=dict)


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Score every method on both sets of experts.

    In the table, columns of seen tasks are those of the merged seen experts, columns of unseen
    tasks those of the merged unseen experts. A method that learns has two rows: with predicted
    coefficients for the unseen experts, and with coefficients learned anew from their images.
    Methods are run as configured, without their grids.

    Raises:
        UserError: fewer than two unseen tasks, or a method that has no place here.
    """
    methods = parse_methods(config.method)
    _check(methods)
    bench = prepare(config)
    if len(bench.suite.unseen) < 2:
        raise UserError(
            "job=transfer merges the experts of at least two unseen tasks: suite.split or "
            "suite.unseen names them"
        )
    seen, unseen = (
        Merger(config, side, create_bank(config, side, directory), directory, run_log)
        for side in (bench, bench.with_roles_swapped())
    )
    done = _Done(bench.bounds())
    for method in methods:
        if isinstance(method, LearnedMethod):
            _learned_rows(method, seen, unseen, done)
        else:
            here, there = seen.as_configured(method), unseen.as_configured(method)
            done.rows[method.name] = _score(seen, here, _state(there))
    if done.coefficients:
        tasks = (*seen.bank.tasks, *unseen.bank.tasks)
        write_coefficients(directory.coefficients, done.coefficients, seen.bank.layers, tasks)
    teachers = teacher_quality(seen.teachers, seen.images)
    cosines = task_vector_cosines(seen.bank)
    unseen_cosines = task_vector_cosines(unseen.bank)
    finish(
        config,
        directory,
        run_log,
        bench,
        done.rows,
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        teachers={task: asdict(quality) for task, quality in teachers.items()},
        warnings=[
            *diagnose(config, bench, cosines, done.rows, teachers, done.learned),
            *near_identical_experts(unseen.bank.tasks, unseen_cosines),
        ],
    )


def _check(methods: Sequence[LearnedMethod | FixedMethod]) -> None:
    """Refuse what would fail, or be left out, after everything was learned.

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
        elif method.settings.tune is not None:
            raise UserError(f"method.{method.name}.tune: job=transfer tunes nothing; use null")


def _learned_rows(method: LearnedMethod, seen: Merger, unseen: Merger, done: _Done) -> None:
    """Rows of a method that learns: predicted, where its learner can, and learned anew."""
    here = seen.as_configured(method)
    anew = unseen.as_configured(replace(method, name=f"{method.name}{ANEW}"))
    assert here.learned is not None
    assert anew.learned is not None
    done.learned |= {method.name: here.learned, anew.name: anew.learned}
    if method.settings.learner != "free":
        config, density = seen.config, method.settings.density
        statistics = run_statistics(config, unseen.bench, unseen.bank, density)
        with torch.no_grad():
            predicted = here.learned.learner.cpu().predict(statistics)
        title = f"{method.settings.title}, predicted"
        state = at_density(unseen.bank, density).merge(predicted, method.settings.anchor)
        done.rows[method.name] = _score(seen, _titled(here, title), state)
        done.coefficients[method.name] = torch.cat([here.learned.coefficients, predicted], dim=-1)
    title = f"{method.settings.title}, learned anew"
    done.rows[anew.name] = _score(seen, _titled(here, title), _state(anew))
    both = [here.learned.coefficients, anew.learned.coefficients]
    done.coefficients[anew.name] = torch.cat(both, dim=-1)


def _titled(merged: Merged, title: str) -> Merged:
    return replace(merged, about={**merged.about, "title": title})


def _score(seen: Merger, merged: Merged, unseen: State) -> MethodResult:
    """Seen tasks with the merged seen experts, unseen tasks with the merged unseen ones."""
    bench = seen.bench
    states = {task.name: _state(merged) for task in bench.suite.seen}
    states |= {task.name: unseen for task in bench.suite.unseen}
    candidate = Candidate(str(merged.about["title"]), bench.zoo, states, keep=False)
    result = bench.scorer.score(candidate)
    agreement = seen.agreement.of(candidate)
    return replace(result, teacher_agreement=agreement, about=merged.about)


def _state(merged: Merged) -> State:
    assert merged.state is not None  # _check has refused the others
    return merged.state
