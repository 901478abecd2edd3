"""``job=corruptions``: what the corruptions look like on the suite's images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from statsmerging.data.corruptions.corrupt import corrupt
from statsmerging.data.corruptions.kinds import CONSTANTS
from statsmerging.data.open_suite import open_suite
from statsmerging.data.pictures import as_seen
from statsmerging.data.settings import CorruptionSettings
from statsmerging.report.figures.pictures import contact_sheet
from statsmerging.store.cache import Cache
from statsmerging.store.files import atomic_path

if TYPE_CHECKING:
    from statsmerging.app.run import Run

log = logging.getLogger(__name__)

#: Most tasks on the sheet.
TASKS = 4

SEVERITIES = range(1, 6)


def corruptions(run: Run) -> None:
    """Write ``corruptions.png`` and ``corruptions.pdf``: one row a kind, one block a task."""
    settings = run.config.corruption
    kinds = list(CONSTANTS[settings.constants]) if settings.kind == "none" else [settings.kind]
    tasks = open_suite(run.config.suite, Cache(Path(run.config.cache))).tasks[:TASKS]
    images = [next(task.sources["test"].undecoded())() for task in tasks]
    sheet = contact_sheet(
        {
            kind.replace("_", " "): [
                shown
                for image in images
                for shown in _series(image, settings.model_copy(update={"kind": kind}))
            ]
            for kind in kinds
        },
        [text for task in tasks for text in (task.name.replace("_", " "), *map(str, SEVERITIES))],
    )
    for suffix, content in sheet.items():
        path = run.directory.path / f"corruptions.{suffix}"
        with atomic_path(path) as partial:
            partial.write_bytes(content)
        log.info("written: %s", path)


def _series(image: Image.Image, settings: CorruptionSettings) -> list[Image.Image]:
    """The image as it is, then at every severity."""
    versions = (settings.model_copy(update={"severity": severity}) for severity in SEVERITIES)
    return [as_seen(image), *(corrupt(image, version) for version in versions)]
