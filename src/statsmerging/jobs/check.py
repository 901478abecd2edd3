"""``job=check``: are these the data and the checkpoints everybody else uses?"""

from __future__ import annotations

import logging

from statsmerging.app.config import Config
from statsmerging.app.loggers.run_log import RunLog, logged
from statsmerging.app.setup import Workbench, finish, prepare
from statsmerging.data.hub import count_differences
from statsmerging.errors import IncompleteError, UserError
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.published import differences, published_rows

log = logging.getLogger(__name__)

#: What a cell that is off by more than a point usually comes from.
USUAL_CAUSES = (
    "usual causes: the order of the classes (a score near chance), another preprocessing than the "
    "checkpoint's (a few points everywhere), experts of another family or another base model (the "
    "individual models alone)"
)


@logged
def run(config: Config, directory: RunDirectory, run_log: RunLog) -> None:
    """Verify counts and splits, score the bounds, and name every cell that is off.

    Raises:
        IncompleteError: something differs from what was published.
        UserError: a corruption, with which nothing published here is comparable.
    """
    if config.corruption.kind != "none":
        raise UserError(f"corruption={config.corruption.kind}: job=check is about clean images")
    bench = prepare(config)  # refuses splits that share images
    methods = bench.bounds()
    published = published_rows(config.zoo.name, config.backbone.label)
    ours = {
        name: {task: cell.accuracy for task, cell in row.accuracies.items()}
        for name, row in methods.items()
    }
    counts = _counts(config, bench)
    cells = [str(difference) for difference in differences(ours, published)]
    finish(config, directory, run_log, bench, methods, counts=counts, off_published=cells)

    for line in [*counts, *cells]:
        log.warning("%s", line)
    if cells:
        log.warning(USUAL_CAUSES)
    if not published:
        log.info(
            "nothing is published for zoo=%s and backbone %s: the scores stand for themselves",
            config.zoo.name,
            config.backbone.label,
        )
    if counts or cells:
        raise IncompleteError(f"{len(counts) + len(cells)} differences from what was published")
    log.info("counts, splits and scores are as they should be")


def _counts(config: Config, bench: Workbench) -> list[str]:
    return [
        line
        for task in bench.suite.tasks
        if task.name in config.suite.catalogue
        for line in count_differences(task, config.suite.catalogue[task.name])
    ]
