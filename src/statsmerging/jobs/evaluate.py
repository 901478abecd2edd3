"""``job=evaluate``: score a file of backbone weights on a suite, with the zoo's heads."""

from __future__ import annotations

from dataclasses import replace

from statsmerging.evaluation.candidate import Candidate
from statsmerging.jobs.closing import finish
from statsmerging.jobs.loggers.run_log import RunLog, logged
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import prepare
from statsmerging.merging.task_vectors import check_same_tensors
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import file_sha256
from statsmerging.records.run_directory import RunDirectory
from statsmerging.runs.finished import check_recorded
from statsmerging.zoo.checkpoints import read_weights


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Score the checkpoint beside the pre-trained and the individual models.

    Its row is named ``checkpoint``, whatever the file is called: a file may share its name with a
    bound.

    Raises:
        UserError: no file, or one of a finished run that is not as the run wrote it.
    """
    if config.job.checkpoint is None:
        raise UserError("job.checkpoint: a .safetensors file with backbone weights is needed")
    path = config.job.checkpoint
    check_recorded(path)
    state = read_weights(path)
    bench = prepare(config)
    check_same_tensors(bench.zoo.pretrained, state, expected="backbone", found=str(path))
    scored = bench.scorer.score(Candidate.of_state(path.name, bench.zoo, state))
    methods = {**bench.bounds(), "checkpoint": replace(scored, about={"title": path.name})}
    finish(config, directory, run_log, bench, methods, checkpoint_sha256=file_sha256(path))
