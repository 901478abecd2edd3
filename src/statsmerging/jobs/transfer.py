"""``job=transfer``: a learner trained on some experts predicts coefficients for others.

That is what a learner of statistics can do and a table of free coefficients cannot. The experts of
the seen tasks teach the learner; those of the unseen tasks are merged with what it predicts for
them, without an image of theirs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from statsmerging.evaluation.candidate import Candidate
from statsmerging.evaluation.teachers import teacher_quality
from statsmerging.jobs.banks import at_density, create_bank
from statsmerging.jobs.closing import finish
from statsmerging.jobs.learning import run_statistics
from statsmerging.jobs.loggers.run_log import RunLog, logged
from statsmerging.jobs.method_settings import parse_methods
from statsmerging.jobs.methods import FixedMethod, LearnedMethod, Merged, Merger, State
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench, prepare
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.errors import UserError
from statsmerging.records.layer_tables import write_coefficients
from statsmerging.records.results import ANEW, MethodResult
from statsmerging.records.run_directory import RunDirectory


@dataclass(frozen=True)
class _Side:
    """One set of experts: its task vectors, and what runs methods on them."""

    bench: Workbench
    bank: TaskVectorBank
    merger: Merger

    def merged(self, method: LearnedMethod | FixedMethod) -> Merged:
        """The method as configured."""
        return next(self.merger.rows(method))


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Score every method on both sets of experts.

    In the table, columns of seen tasks are those of the merged seen experts, columns of unseen
    tasks those of the merged unseen experts. A method that learns has two rows: with predicted
    coefficients for the unseen experts, and with coefficients learned anew from their images.

    Raises:
        UserError: fewer than two unseen tasks, or a method that gives no single model.
    """
    methods = parse_methods(config.method)
    bench = prepare(config)
    if len(bench.suite.unseen) < 2:
        raise UserError(
            "job=transfer merges the experts of at least two unseen tasks: suite.split or "
            "suite.unseen names them"
        )
    seen, unseen = (
        _side(config, side, directory, run_log) for side in (bench, bench.with_roles_swapped())
    )
    rows: dict[str, MethodResult] = bench.bounds()
    coefficients: dict[str, Tensor] = {}
    for method in methods:
        if isinstance(method, LearnedMethod):
            _learned_rows(method, seen, unseen, rows, coefficients)
        else:
            row = seen.merged(method)
            rows[method.name] = _score(seen, row, _state(unseen.merged(method)))
    if coefficients:
        tasks = (*seen.bank.tasks, *unseen.bank.tasks)
        write_coefficients(directory.coefficients, coefficients, seen.bank.layers, tasks)
    teachers = teacher_quality(seen.merger.teachers, seen.merger.images)
    finish(
        config,
        directory,
        run_log,
        bench,
        rows,
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        teachers={task: asdict(quality) for task, quality in teachers.items()},
    )


def _side(config: Config, bench: Workbench, directory: RunDirectory, run_log: RunLog) -> _Side:
    bank = create_bank(config, bench, directory)
    return _Side(bench, bank, Merger(config, bench, bank, directory, run_log))


def _learned_rows(
    method: LearnedMethod,
    seen: _Side,
    unseen: _Side,
    rows: dict[str, MethodResult],
    coefficients: dict[str, Tensor],
) -> None:
    """Rows of a method that learns: predicted, where its learner can, and learned anew."""
    here = seen.merged(method)
    anew = unseen.merged(replace(method, name=f"{method.name}{ANEW}"))
    assert here.learned is not None
    assert anew.learned is not None
    if method.settings.learner != "free":
        config, density = seen.merger.config, method.settings.density
        statistics = run_statistics(config, unseen.bench, unseen.bank, density)
        with torch.no_grad():
            predicted = here.learned.learner.cpu().predict(statistics)
        title = f"{method.settings.title}, predicted"
        state = at_density(unseen.bank, density).merge(predicted, config.merge.anchor)
        rows[method.name] = _score(seen, _titled(here, title), state)
        coefficients[method.name] = torch.cat([here.learned.coefficients, predicted], dim=-1)
    title = f"{method.settings.title}, learned anew"
    rows[anew.name] = _score(seen, _titled(here, title), _state(anew))
    both = [here.learned.coefficients, anew.learned.coefficients]
    coefficients[anew.name] = torch.cat(both, dim=-1)


def _titled(merged: Merged, title: str) -> Merged:
    return replace(merged, about={**merged.about, "title": title})


def _score(seen: _Side, merged: Merged, unseen: State) -> MethodResult:
    """Seen tasks with the merged seen experts, unseen tasks with the merged unseen ones."""
    bench = seen.bench
    states = {task.name: _state(merged) for task in bench.suite.seen}
    states |= {task.name: unseen for task in bench.suite.unseen}
    candidate = Candidate(str(merged.about["title"]), bench.zoo, states, keep=False)
    result = bench.scorer.score(candidate)
    agreement = seen.merger.agreement.of(candidate)
    return replace(result, teacher_agreement=agreement, about=merged.about)


def _state(merged: Merged) -> State:
    if merged.state is None:
        raise UserError(f"method {merged.name}: job=transfer needs methods that give one model")
    return merged.state
