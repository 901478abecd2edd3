"""``job=corruptions``: what the corruptions look like on the suite's images."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL import Image

from statsmerging.data.corruptions.constants import CONSTANTS
from statsmerging.data.corruptions.corrupt import corrupt
from statsmerging.data.corruptions.settings import CorruptionSettings
from statsmerging.data.pictures import as_seen
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import open_suite
from statsmerging.records.cache import Cache
from statsmerging.records.files import atomic_path
from statsmerging.records.run_directory import RunDirectory
from statsmerging.report.figures.pictures import contact_sheet

log = logging.getLogger(__name__)

#: Most tasks on the sheet.
TASKS = 4

SEVERITIES = range(1, 6)


def run(config: Config, directory: RunDirectory) -> None:
    """Write ``corruptions.png`` and ``corruptions.pdf``: one row a kind, one block a task."""
    settings = config.corruption
    kinds = list(CONSTANTS[settings.constants]) if settings.kind == "none" else [settings.kind]
    tasks = open_suite(config, Cache(Path(config.cache))).tasks[:TASKS]
    images = [next(iter(task.sources["test"].images())) for task in tasks]
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
        path = directory.path / f"corruptions.{suffix}"
        with atomic_path(path) as partial:
            partial.write_bytes(content)
        log.info("written: %s", path)


def _series(image: Image.Image, settings: CorruptionSettings) -> list[Image.Image]:
    """The image as it is, then at every severity."""
    versions = (settings.model_copy(update={"severity": severity}) for severity in SEVERITIES)
    return [as_seen(image), *(corrupt(image, version) for version in versions)]
