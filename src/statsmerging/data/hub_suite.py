"""A suite of published data sets, from the Hugging Face hub or from a local mirror."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from statsmerging.data.catalogue import CatalogueEntry
from statsmerging.data.folder_suite import load_folder, task_folder
from statsmerging.data.hub import hub_is_open
from statsmerging.data.hugging_face import load_hub_task
from statsmerging.data.published_data import DatasetAddress
from statsmerging.data.suites import Suite, Task, choose_tasks
from statsmerging.records.errors import MissingFilesError, UserError, gather_missing

log = logging.getLogger(__name__)


def hub_suite(
    name: str,
    catalogue: Mapping[str, CatalogueEntry],
    root: Path | None,
    tasks: list[str] | None,
    unseen: list[str],
    *,
    cache: Path,
) -> Suite:
    """The named tasks of the catalogue.

    A split whose number of images is not the published one is warned about.

    Args:
        name: of the suite, as it stands in tables.
        root: a mirror with one folder a task, ``ROOT/TASK/``; ``None`` asks the hub.
        tasks: names of the seen tasks; ``None`` takes all that are not unseen.
        unseen: names of tasks that are only scored.
        cache: folder for the Arrow files that ``datasets`` makes.

    Raises:
        MissingFilesError: data sets that are neither in the mirror nor to be had; all of them.
        UserError: an unknown task, or a data set that cannot be read.
    """
    seen_names, unseen_names = choose_tasks(catalogue, tasks, unseen, where="the catalogue")
    loaded: dict[str, Task] = {}

    def load(task: str) -> None:
        loaded[task] = _load(task, catalogue[task], root, cache)
        for difference in count_differences(loaded[task], catalogue[task]):
            log.warning("%s", difference)

    gather_missing(*(lambda task=task: load(task) for task in [*seen_names, *unseen_names]))
    return Suite(
        name,
        tuple(loaded[task] for task in seen_names),
        tuple(loaded[task] for task in unseen_names),
    )


def count_differences(task: Task, entry: CatalogueEntry) -> list[str]:
    """One line for each split whose number of images is not the published one.

    A validation split that was cut from the training images counts as training images.
    """
    found = {split: len(source) for split, source in task.sources.items()}
    if "validation" not in entry.counts:
        found["train"] += found.pop("validation")
    return [
        f"{task.name}: {found[split]} {split} images, published are {expected}"
        for split, expected in entry.counts.items()
        if found[split] != expected
    ]


def _load(task: str, entry: CatalogueEntry, root: Path | None, cache: Path) -> Task:
    what = f"data set {entry.id} (about {entry.gigabytes:g} GB)"
    classes = tuple(entry.classes) if entry.classes else None
    address = DatasetAddress(entry.subset, entry.image, entry.label, classes, entry.splits)
    if root is not None:
        folder = task_folder(root, task)
        if not folder.is_dir():
            raise MissingFilesError([f"{root / task} ({what})"])
        return load_folder(folder, cache, address, name=task)
    if Path(entry.id).exists():  # `datasets` would take it for the data set
        raise UserError(f"{entry.id} is a folder here, and a data set of the hub: use suite.root")
    is_open = hub_is_open()  # asked first: where it is closed, `datasets` then looks in its cache
    try:
        return load_hub_task(task, entry.id, address, cache=cache)
    except UserError as error:
        if is_open:
            raise
        raise MissingFilesError([what]) from error
