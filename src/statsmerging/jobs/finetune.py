"""``job=finetune``: make the experts of a suite, or find them in the cache, and score them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statsmerging.zoo.experts import write_zoo

if TYPE_CHECKING:
    from statsmerging.app.setup import ScoredRun


def finetune(run: ScoredRun) -> None:
    """Score pre-trained and individual models; the experts go to ``experts/TASK.safetensors``.

    That folder is what ``zoo=local zoo.root=…/experts`` reads, and ``pretrained.safetensors`` what
    ``backbone.weights`` must name then.
    """
    problem = run.prepare()
    write_zoo(run.directory.path, problem.zoo)
    run.finish(problem, problem.bounds())
