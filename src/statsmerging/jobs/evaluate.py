"""``job=evaluate``: score a file of backbone weights on a suite, with the zoo's heads."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from statsmerging.errors import UserError
from statsmerging.merging.state_dicts import check_same_tensors
from statsmerging.runs.finished import check_recorded
from statsmerging.scoring.scores import Candidate
from statsmerging.store.hashing import file_sha256
from statsmerging.zoo.weights import read_weights

if TYPE_CHECKING:
    from statsmerging.app.setup import ScoredRun


def evaluate(run: ScoredRun) -> None:
    """Score the checkpoint beside the pre-trained and the individual models.

    Its row is named ``checkpoint``, whatever the file is called: a file may share its name with a
    bound.

    Raises:
        UserError: no file, or one of a finished run that is not as the run wrote it.
    """
    path = run.config.job.checkpoint
    if path is None:
        raise UserError("job.checkpoint: a .safetensors file with backbone weights is needed")
    check_recorded(path)
    state = read_weights(path)
    problem = run.prepare()
    check_same_tensors(problem.zoo.pretrained, state, expected="backbone", found=str(path))
    scored = problem.scorer.score(Candidate.of_state(path.name, problem.zoo, state))
    methods = {**problem.bounds(), "checkpoint": replace(scored, about={"title": path.name})}
    run.finish(problem, methods, checkpoint_sha256=file_sha256(path))
