"""``job=check``: are these the data and the checkpoints everybody else uses?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from statsmerging.data.hub import count_differences
from statsmerging.errors import IncompleteError, UserError
from statsmerging.runs.published import deviations, published_rows

if TYPE_CHECKING:
    from statsmerging.app.setup import ScoredRun

log = logging.getLogger(__name__)

#: Why a cell deviates by more than a point.
USUAL_CAUSES = (
    "usual causes: the order of the classes (a score near chance), another preprocessing than the "
    "checkpoint's (a few points everywhere), experts of another family or another base model (the "
    "individual models alone)"
)


def check(run: ScoredRun) -> None:
    """Verify counts and splits, score the bounds, and name every cell that deviates.

    Raises:
        IncompleteError: something differs from what was published.
        UserError: a corruption, with which nothing published here is comparable.
    """
    config = run.config
    if config.corruption.kind != "none":
        raise UserError(f"corruption={config.corruption.kind}: job=check is about clean images")
    problem = run.prepare()  # refuses splits that share images
    methods = problem.bounds()
    published = published_rows(config.zoo.kind, config.backbone.label)
    ours = {
        name: {task: cell.accuracy for task, cell in row.accuracies.items()}
        for name, row in methods.items()
    }
    counts = [
        line
        for task in problem.suite.tasks
        if task.name in config.suite.catalogue
        for line in count_differences(task, config.suite.catalogue[task.name])
    ]
    cells = [str(difference) for difference in deviations(ours, published)]
    run.finish(problem, methods, counts=counts, off_published=cells)

    for line in [*counts, *cells]:
        log.warning("%s", line)
    if cells:
        log.warning(USUAL_CAUSES)
    if not published:
        log.info(
            "nothing is published for zoo=%s and backbone %s: the scores stand for themselves",
            config.zoo.kind,
            config.backbone.label,
        )
    if counts or cells:
        raise IncompleteError(f"{len(counts) + len(cells)} differences from what was published")
    log.info("counts, splits and scores are as they should be")
