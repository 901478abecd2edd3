"""The folder suite: any number of tasks in the local layout of Hugging Face ``datasets``.

``ROOT/TASK/`` holds what ``datasets.load_dataset`` reads: parquet files per split (with or
without a card), or image folders. One image column and one label column are expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from statsmerging.data.suites import Split, Suite, Task, choose_tasks
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import file_sha256, json_sha256

#: Share of the training images that become the validation split where there is none, and the
#: most it takes (the field's convention, seed 0).
VALIDATION_SHARE = 0.1
VALIDATION_LIMIT = 5000

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class _FolderSource:
    """A split of a data set in a folder, decoded when it is asked for."""

    folder: Path
    dataset: Any = field(repr=False)
    image_column: str
    label_column: str
    classes: int
    files: tuple[str, ...]
    part: str

    @cached_property
    def fingerprint(self) -> str:
        # In image folders the labels are in the paths, so the bytes of the files do not tell them.
        hashes = [file_sha256(Path(file)) for file in self.files]
        return json_sha256([self.part, self.labels().tolist(), *hashes])

    def __len__(self) -> int:
        return len(self.dataset)

    def images(self) -> Iterator[Image.Image]:
        column = self.dataset.select_columns(self.image_column)
        for row in range(len(column)):
            try:
                yield column[row][self.image_column]
            except OSError as error:
                raise UserError(f"{self.folder}: image {row} cannot be decoded: {error}") from error

    def labels(self) -> np.ndarray:
        column = self.dataset.with_format("numpy").select_columns(self.label_column)
        labels = np.asarray(column[:][self.label_column], dtype=np.int64)
        if labels.size and (labels.min() < 0 or labels.max() >= self.classes):
            raise UserError(
                f"{self.folder}: labels from {labels.min()} to {labels.max()}, "
                f"expected 0 to {self.classes - 1} (-1 marks a split published without labels)"
            )
        return labels


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
    if not root.is_dir():
        raise UserError(f"suite.root={root}: no such folder")
    folders = {path.name: path for path in sorted(root.iterdir()) if _holds_data(path)}
    if not folders:
        raise UserError(f"suite.root={root} holds no task: expected ROOT/TASK/train-*.parquet")
    wanted = choose_tasks(folders, tasks, unseen, where=str(root))
    seen_tasks, unseen_tasks = (
        tuple(_load_task(folders[task], cache) for task in names) for names in wanted
    )
    return Suite(name, seen_tasks, unseen_tasks)


def _holds_data(folder: Path) -> bool:
    return folder.is_dir() and (
        any(folder.rglob("*.parquet"))
        or any((folder / name).is_dir() for name in ("train", "test"))
    )


def _load_task(folder: Path, cache: Path) -> Task:
    import datasets

    _check_parquet_files(folder)
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(str(folder), cache_dir=str(cache))
        builder.download_and_prepare()
        splits = builder.as_dataset()
    except Exception as error:
        # `datasets` wraps whatever its readers raise; the first line names the cause.
        raise UserError(f"{folder} cannot be read as a data set: {_first_line(error)}") from error

    image_column, label_column, classes = _columns(folder, next(iter(splits.values())).features)
    found = {
        split: next((name for name in names if name in splits), None)
        for split, names in _SPLIT_NAMES.items()
    }
    if found["train"] is None or found["test"] is None:
        raise UserError(f"{folder} needs a train and a test split; it has {', '.join(splits)}")

    def source(name: str, dataset: Any, part: str) -> _FolderSource:
        files = tuple(str(file) for file in builder.config.data_files[name])
        return _FolderSource(folder, dataset, image_column, label_column, len(classes), files, part)

    train, test, validation = found["train"], found["test"], found["validation"]
    sources: dict[Split, _FolderSource] = {"test": source(test, splits[test], "whole")}
    if validation is not None:
        sources["train"] = source(train, splits[train], "whole")
        sources["validation"] = source(validation, splits[validation], "whole")
    else:
        size = min(VALIDATION_LIMIT, max(1, int(VALIDATION_SHARE * len(splits[train]))))
        parts = splits[train].train_test_split(test_size=size, seed=0)
        sources["train"] = source(train, parts["train"], "train without validation")
        sources["validation"] = source(train, parts["test"], "validation from train")
    return Task(folder.name, lambda: classes, sources)


def _columns(folder: Path, features: Any) -> tuple[str, str, tuple[str, ...]]:
    import datasets

    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{folder} needs one image and one class-label column; it has {', '.join(features)}"
        )
    return images[0], labels[0], tuple(features[labels[0]].names)


def _check_parquet_files(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in sorted(folder.rglob("*.parquet")):
        try:
            pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file} is not a whole parquet file: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]
