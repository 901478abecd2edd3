"""The folder suite: any number of tasks in the local layout of Hugging Face ``datasets``.

``ROOT/TASK/`` holds what ``datasets.load_dataset`` reads: parquet files per split (with or
without a card), or image folders.
"""

from __future__ import annotations

from pathlib import Path

from statsmerging.data.hugging_face import DatasetAddress, load_task
from statsmerging.data.suites import Suite, Task, choose_tasks
from statsmerging.records.errors import UserError, first_line


def folder_suite(
    root: Path, tasks: list[str] | None, unseen: list[str], *, cache: Path, name: str = "folder"
) -> Suite:
    """The tasks found in ``root``, or the named ones among them.

    Args:
        root: folder with one subfolder a task.
        tasks: names of the seen tasks; ``None`` takes every folder that is not unseen.
        unseen: names of tasks that are only scored.
        cache: folder for the Arrow files that ``datasets`` makes.

    Raises:
        UserError: the folder is not there or holds no task, a task is unknown, lacks a split, or
            cannot be read (names the file).
    """
    seen_tasks, unseen_tasks = (
        tuple(load_folder(folder, cache) for folder in folders)
        for folders in chosen_folders(root, tasks, unseen)
    )
    return Suite(name, seen_tasks, unseen_tasks)


def chosen_folders(
    root: Path, tasks: list[str] | None, unseen: list[str]
) -> tuple[list[Path], list[Path]]:
    """Folders of the seen and of the unseen tasks, unread; arguments as for ``folder_suite``.

    Raises:
        UserError: the folder is not there or holds no task, or a task is unknown.
    """
    if not root.is_dir():
        raise UserError(f"suite.root={root}: no such folder")
    folders = {path.name: path for path in sorted(root.iterdir()) if _holds_data(path)}
    if not folders:
        raise UserError(f"suite.root={root} holds no task: expected ROOT/TASK/train-*.parquet")
    seen_names, unseen_names = choose_tasks(folders, tasks, unseen, where=str(root))
    return [folders[task] for task in seen_names], [folders[task] for task in unseen_names]


def _holds_data(folder: Path) -> bool:
    return folder.is_dir() and (
        any(folder.rglob("*.parquet"))
        or any((folder / name).is_dir() for name in ("train", "test"))
    )


def load_folder(folder: Path, cache: Path) -> Task:
    """The task in a folder, named after it.

    Raises:
        UserError: a parquet file that is cut short, or whatever ``load_task`` raises.
    """
    _check_parquet_files(folder)
    return load_task(folder.name, DatasetAddress(str(folder)), cache=cache)


def _check_parquet_files(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in sorted(folder.rglob("*.parquet")):
        try:
            pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            cause = first_line(error.__cause__ or error)
            raise UserError(f"{file} is not a whole parquet file: {cause}") from error
