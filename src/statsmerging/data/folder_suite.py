"""The folder suite: any number of tasks, each a folder of parquet files or of pictures.

The folders are received: their files are found by name, never by what a card in them says, and
nothing is fetched. ``docs/data_folders.md`` describes the layouts.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from statsmerging.choices import Split
from statsmerging.data.local_splits import parquet_splits, picture_split, shown_path
from statsmerging.data.settings import DatasetLayout
from statsmerging.data.sources import SPLIT_NAMES, choose_splits, first_few, published_task
from statsmerging.data.suites import Suite, Task, choose_tasks
from statsmerging.errors import UserError
from statsmerging.store.received import ReceivedError

log = logging.getLogger(__name__)

_UNAMBIGUOUS = DatasetLayout()


def folder_suite(
    root: Path,
    tasks: list[str] | None,
    unseen: list[str],
    *,
    cache: Path,
    name: str = "folder",
    layout: DatasetLayout = _UNAMBIGUOUS,
) -> Suite:
    """The tasks found in ``root``, or the named ones among them.

    If none are named, there is a warning for each folder that is skipped.

    Args:
        root: folder with one subfolder per task.
        tasks: names of the seen tasks; ``None`` takes every folder that is not unseen.
        unseen: names of tasks that are only scored.
        cache: folder for what is derived from the data.
        name: of the suite, as it is written in tables.
        layout: columns of all tasks, if they are ambiguous.

    Raises:
        UserError: the folder does not exist or holds no task, a task is unknown, lacks a split, or
            cannot be read (names the file).
    """
    seen_names, unseen_names, skipped = chosen_folders(root, tasks, unseen)
    for reason in skipped:
        log.warning("passed over: %s", reason)
    seen_tasks, unseen_tasks = (
        tuple(load_folder(task_folder(root, task), cache, layout, name=task) for task in names)
        for names in (seen_names, unseen_names)
    )
    return Suite(name, seen_tasks, unseen_tasks)


def chosen_folders(
    root: Path, tasks: list[str] | None, unseen: list[str]
) -> tuple[list[str], list[str], list[str]]:
    """Names of the seen and of the unseen tasks, unread; arguments as for ``folder_suite``.

    The third list gives the reason for each skipped folder; it is empty if tasks are named.

    Raises:
        UserError: the folder does not exist or holds no task, a task is unknown or lacks a split.
    """
    if not root.is_dir():
        raise UserError(f"suite.root={root}: no such folder")
    found: list[str] = []
    skipped: dict[str, str] = {}
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            find_splits(task_folder(root, path.name), _UNAMBIGUOUS)
        except UserError as error:
            skipped[path.name] = str(error)
        else:
            found.append(path.name)
    for task in [*(tasks or []), *unseen]:
        if task in skipped:
            raise UserError(skipped[task])
    if not found:
        reasons = "".join(f"; {reason}" for reason in list(skipped.values())[:3])
        raise UserError(
            f"suite.root={root} holds no task: expected ROOT/TASK/train-*.parquet or "
            f"ROOT/TASK/train/CLASS/PICTURE{reasons}"
        )
    seen_names, unseen_names = choose_tasks(found, tasks, unseen, where=str(root))
    return seen_names, unseen_names, list(skipped.values()) if tasks is None else []


def task_folder(root: Path, task: str) -> Path:
    """The folder of a task; it may be a link to another place in ``root``.

    Raises:
        UserError: a name that is not printable, or a link out of ``root``.
    """
    where = shown_path(root, task)
    if not task.isprintable():
        raise UserError(f"{where}: the name of a task must be printable")
    folder = (root / task).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise UserError(f"{where} leads out of {root}; such links are not followed")
    return folder if (root / task).is_symlink() else root / task


def load_folder(
    folder: Path,
    cache: Path,
    layout: DatasetLayout = _UNAMBIGUOUS,
    *,
    name: str | None = None,
) -> Task:
    """The task in a folder, with its labels; no picture is read yet.

    Args:
        cache: folder for what is derived from the data.
        name: of the task; ``None`` takes the folder's name.

    Raises:
        UserError: names the file or the folder that is not as expected.
    """
    files_of = find_splits(folder, layout)
    if _is_parquet(files_of["train"][0]):
        published = parquet_splits(folder, files_of, layout)
    else:
        published = {
            split: picture_split(folder, split, files, layout) for split, files in files_of.items()
        }
    return published_task(
        name or folder.name, shown_path(folder), published, layout.classes, cache=cache
    )


def find_splits(folder: Path, layout: DatasetLayout) -> dict[Split, list[str]]:
    """Our split → its files, as paths within the folder, in the order of their names.

    If there are parquet files, their names or the folders above them name the split. Otherwise the
    folders directly below ``folder`` are the splits. Hidden files are left out.

    Raises:
        UserError: no train or no test split, files of several data sets, or a linked folder.
    """
    files: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        inside = Path(place).relative_to(folder)
        for name in folders:
            # What a linked folder holds would be missing without a message.
            if (folder / inside / name).is_symlink():
                where = shown_path(folder, (inside / name).as_posix())
                raise ReceivedError(f"{where} is a link; links are not followed")
        files += [(inside / name).as_posix() for name in names if not _is_hidden(name)]
    files.sort()
    splits: dict[str, list[str]] = {}
    if parquet := [file for file in files if _is_parquet(file)]:
        splits = _parquet_files(folder, parquet, layout)
    else:
        for file in files:
            name, _, below = file.partition("/")
            if below:
                splits.setdefault(name, []).append(file)
    chosen = choose_splits(shown_path(folder), splits, layout)
    return {split: splits[name] for split, name in chosen.items()}


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_parquet(file: str) -> bool:
    return file.casefold().endswith(".parquet")


def _parquet_files(
    folder: Path, files: Sequence[str], layout: DatasetLayout
) -> dict[str, list[str]]:
    """Published split → its files, of one data set; a folder may hold several (subsets)."""
    usual = [name for names in SPLIT_NAMES.values() for name in names]
    split_names = {name.casefold() for name in [*usual, *layout.splits.values()]}
    subsets: dict[str, dict[str, list[str]]] = {}
    for file in files:
        split, subset = _split_and_subset(folder, file, split_names)
        if split is not None:
            subsets.setdefault(subset, {}).setdefault(split, []).append(file)
    if not subsets:
        raise UserError(f"{shown_path(folder)}: no file's name tells a split: {first_few(files)}")
    if layout.subset is not None:
        wanted = [subset for subset in subsets if layout.subset in subset.split("/")]
        subsets = {subset: subsets[subset] for subset in wanted} or subsets
    if len(subsets) > 1:
        names = first_few(sorted(subsets))
        raise UserError(f"{shown_path(folder)} holds several data sets, {names}: keep one of them")
    return next(iter(subsets.values()))


def _split_and_subset(folder: Path, file: str, split_names: set[str]) -> tuple[str | None, str]:
    """The split that a parquet file's path names, and the folder above all splits."""
    path = PurePosixPath(file)
    for depth, part in enumerate(path.parts[:-1]):
        if part.casefold() in split_names:
            return part, "/".join(path.parts[:depth])
    # The same characters separate words as in `datasets`: train-00000-of-00001, mnist_train, test2.
    letter = r"[^-._ \d]"
    found = [
        name
        for name in split_names
        if re.search(rf"(?<!{letter}){re.escape(name)}(?!{letter})", path.stem.casefold())
    ]
    # Of "val" and "val_small", the longer name is meant.
    longest = [name for name in found if not any(name != it and name in it for it in found)]
    if len(longest) > 1:
        names = " or ".join(sorted(longest))
        raise UserError(f"{shown_path(folder, file)}: which split is it, {names}?")
    return (longest[0] if longest else None), str(path.parent)
