"""``job=distill``: experts of other architectures become experts of the backbone."""

from __future__ import annotations

from statsmerging.app.config import Config
from statsmerging.app.loggers.run_log import RunLog, logged
from statsmerging.app.setup import finish, prepare
from statsmerging.errors import UserError
from statsmerging.runs.directory import RunDirectory
from statsmerging.scoring.diagnostics import weak_students
from statsmerging.zoo.experts import write_zoo


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Score every teacher and its student; the whole zoo goes to ``experts/TASK.safetensors``.

    Raises:
        UserError: nothing is to be distilled.
    """
    if not config.heterogeneous.experts:
        raise UserError(
            "heterogeneous.experts: name the tasks whose experts have another architecture, "
            "e.g. experiment=heterogeneous_cnn_into_vit hydra.mode=RUN"
        )
    bench = prepare(config)
    write_zoo(directory.path, bench.zoo)
    methods = bench.bounds()
    warnings = list(weak_students(methods, bench.other_architectures))
    finish(config, directory, run_log, bench, methods, warnings=warnings)
