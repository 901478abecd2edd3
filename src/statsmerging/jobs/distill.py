"""``job=distill``: experts of other architectures become experts of the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statsmerging.errors import UserError
from statsmerging.scoring.diagnostics import weak_students
from statsmerging.zoo.experts import write_zoo

if TYPE_CHECKING:
    from statsmerging.app.setup import ScoredRun


def distill(run: ScoredRun) -> None:
    """Score every teacher and its student; the whole zoo goes to ``experts/TASK.safetensors``.

    Raises:
        UserError: nothing is to be distilled.
    """
    if not run.config.heterogeneous.experts:
        raise UserError(
            "heterogeneous.experts: name the tasks whose experts have another architecture, "
            "e.g. experiment=heterogeneous_cnn_into_vit hydra.mode=RUN"
        )
    problem = run.prepare()
    write_zoo(run.directory.path, problem.zoo)
    methods = problem.bounds()
    warnings = list(weak_students(methods, problem.heterogeneous_architectures))
    run.finish(problem, methods, warnings=warnings)
