"""``job=finetune``: make the experts of a suite, or find them in the cache, and score them."""

from __future__ import annotations

from statsmerging.app.config import Config
from statsmerging.app.loggers.run_log import RunLog, logged
from statsmerging.app.setup import finish, prepare
from statsmerging.runs.directory import RunDirectory
from statsmerging.zoo.experts import write_zoo


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Score pre-trained and individual models; the experts go to ``experts/TASK.safetensors``.

    That folder is what ``zoo=local zoo.root=…/experts`` reads, and ``pretrained.safetensors`` what
    ``backbone.weights`` must name then.
    """
    bench = prepare(config)
    write_zoo(directory.path, bench.zoo)
    methods = bench.bounds()
    finish(config, directory, run_log, bench, methods)
