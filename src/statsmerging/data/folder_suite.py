"""The folder suite: any number of tasks, each a folder of parquet files or of pictures."""

from __future__ import annotations

import logging
from pathlib import Path

from statsmerging.data.local_splits import find_splits, published_splits
from statsmerging.data.settings import DatasetAddress
from statsmerging.data.sources import published_task
from statsmerging.data.suites import Suite, Task, choose_tasks
from statsmerging.errors import UserError, printable

log = logging.getLogger(__name__)

_WHATEVER_IS_OBVIOUS = DatasetAddress()


def folder_suite(
    root: Path,
    tasks: list[str] | None,
    unseen: list[str],
    *,
    cache: Path,
    name: str = "folder",
    address: DatasetAddress = _WHATEVER_IS_OBVIOUS,
) -> Suite:
    """The tasks found in ``root``, or the named ones among them.

    Where none are named, each folder that is passed over is warned about.

    Args:
        root: folder with one subfolder a task.
        tasks: names of the seen tasks; ``None`` takes every folder that is not unseen.
        unseen: names of tasks that are only scored.
        cache: folder for what is derived from the data.
        name: of the suite, as it stands in tables.
        address: columns of all tasks, where they are not obvious.

    Raises:
        UserError: the folder is not there or holds no task, a task is unknown, lacks a split, or
            cannot be read (names the file).
    """
    seen_names, unseen_names, passed_over = chosen_folders(root, tasks, unseen)
    for reason in passed_over:
        log.warning("passed over: %s", reason)
    seen_tasks, unseen_tasks = (
        tuple(load_folder(task_folder(root, task), cache, address, name=task) for task in names)
        for names in (seen_names, unseen_names)
    )
    return Suite(name, seen_tasks, unseen_tasks)


def chosen_folders(
    root: Path, tasks: list[str] | None, unseen: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """Names of the seen and of the unseen tasks, unread; arguments as for ``folder_suite``.

    The third list says why folders are passed over, where all of them are meant.

    Raises:
        UserError: the folder is not there or holds no task, or a task is unknown or lacks a split.
    """
    if not root.is_dir():
        raise UserError(f"suite.root={root}: no such folder")
    folders, passed_over = _task_folders(root)
    for task in [*(tasks or []), *unseen]:
        if task in passed_over:
            raise UserError(passed_over[task])
    if not folders:
        reasons = "".join(f"; {reason}" for reason in list(passed_over.values())[:3])
        raise UserError(
            f"suite.root={root} holds no task: expected ROOT/TASK/train-*.parquet or "
            f"ROOT/TASK/train/CLASS/PICTURE{reasons}"
        )
    seen_names, unseen_names = choose_tasks(folders, tasks, unseen, where=str(root))
    return seen_names, unseen_names, list(passed_over.values()) if tasks is None else []


def load_folder(
    folder: Path,
    cache: Path,
    address: DatasetAddress = _WHATEVER_IS_OBVIOUS,
    *,
    name: str | None = None,
) -> Task:
    """The task in a folder, named after it if it has no other name.

    Raises:
        UserError: names the file or the folder that is not what it should be.
    """
    published = published_splits(folder, address)
    where = printable(str(folder))
    return published_task(name or folder.name, where, published, address.classes, cache=cache)


def task_folder(root: Path, task: str) -> Path:
    """The folder of a task; a link may lead to another place in ``root``.

    Raises:
        UserError: a name that cannot be shown, or a link out of ``root``.
    """
    where = printable(str(root / task))
    if not task.isprintable():
        raise UserError(f"{where}: the name of a task must be printable")
    folder = (root / task).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise UserError(f"{where} leads out of {root}; such links are not followed")
    return folder if (root / task).is_symlink() else root / task


def _task_folders(root: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the folders that hold a task, and why each other one holds none."""
    found: list[str] = []
    passed_over: dict[str, str] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            find_splits(task_folder(root, path.name), _WHATEVER_IS_OBVIOUS)
        except UserError as error:
            passed_over[path.name] = str(error)
        else:
            found.append(path.name)
    return found, passed_over
