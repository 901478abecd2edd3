"""One task from one data set of Hugging Face ``datasets``: a local folder, or the hub.

Parquet files per split (with or without a card) or image folders, one image column and one
class-label column.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from statsmerging.data.suites import Split, Task
from statsmerging.records.errors import UserError, first_line
from statsmerging.records.files import read_json, write_json
from statsmerging.records.hashing import file_checksum, file_sha256, json_sha256
from statsmerging.records.locks import waiting_lock

log = logging.getLogger(__name__)

#: Beside a data set's Arrow files: what each held when it was made.
CHECKSUMS = "checksums.json"

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
class DatasetAddress:
    """Where a data set is and which of its columns and splits make the task.

    Attributes:
        path: a local folder, or an id on the hub (``OWNER/NAME``).
        subset: name of a configuration, where the data set has several.
        image: the image column; ``None`` where there is only one.
        label: the class-label column; ``None`` where there is only one.
        classes: class names in label order, where the label column holds bare numbers.
        splits: our split → the data set's name for it, where it is not an obvious one.
    """

    path: str
    subset: str | None = None
    image: str | None = None
    label: str | None = None
    classes: tuple[str, ...] | None = None
    splits: dict[Split, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _DatasetSource:
    """A split of a data set, decoded when it is asked for."""

    path: str
    dataset: Any = field(repr=False)
    columns: _Columns
    files: tuple[str, ...]
    part: str

    @cached_property
    def fingerprint(self) -> str:
        # In image folders the labels are in the paths, so the bytes of the files do not tell them.
        return json_sha256([self.part, self.labels().tolist(), *map(_file_hash, self.files)])

    def __len__(self) -> int:
        return len(self.dataset)

    def images(self) -> Iterator[Image.Image]:
        column = self.dataset.select_columns(self.columns.image)
        for row in range(len(column)):
            try:
                yield column[row][self.columns.image]
            except OSError as error:
                raise UserError(f"{self.path}: image {row} cannot be decoded: {error}") from error

    def labels(self) -> np.ndarray:
        column = self.dataset.with_format("numpy").select_columns(self.columns.label)
        labels = np.asarray(column[:][self.columns.label], dtype=np.int64)
        classes = len(self.columns.classes)
        if labels.size and (labels.min() < 0 or labels.max() >= classes):
            raise UserError(
                f"{self.path}: labels from {labels.min()} to {labels.max()}, expected 0 to "
                f"{classes - 1} (-1 marks a split published without labels)"
            )
        return labels


def load_task(name: str, address: DatasetAddress, *, cache: Path) -> Task:
    """The task of a data set, with its images not yet decoded.

    Where there is no validation split, a part of the training images becomes one.

    Args:
        name: of the task, as it stands in tables.
        cache: folder for the Arrow files that ``datasets`` makes.

    Raises:
        UserError: the data set cannot be read or reached, lacks a split, or has no unmistakable
            image and label column.
    """
    import datasets

    path = address.path
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(path, address.subset, cache_dir=str(cache))
        _prepare(builder)
        splits = builder.as_dataset()
    except Exception as error:
        # `datasets` wraps whatever its readers raise; the first line names the cause.
        cause = first_line(error.__cause__ or error)
        raise UserError(f"{path} cannot be read as a data set: {cause}") from error

    columns = _columns(address, next(iter(splits.values())).features)
    found = {split: _split_name(address, split, splits) for split in _SPLIT_NAMES}
    train, test, validation = found["train"], found["test"], found["validation"]
    if train is None or test is None:
        raise UserError(f"{path} needs a train and a test split; it has {', '.join(splits)}")

    def source(split: str, dataset: Any, part: str) -> _DatasetSource:
        files = tuple(str(file) for file in builder.config.data_files[split])
        return _DatasetSource(path, dataset, columns, files, part)

    sources: dict[Split, _DatasetSource] = {"test": source(test, splits[test], "whole")}
    if validation is not None:
        sources["train"] = source(train, splits[train], "whole")
        sources["validation"] = source(validation, splits[validation], "whole")
    else:
        size = min(VALIDATION_LIMIT, max(1, int(VALIDATION_SHARE * len(splits[train]))))
        parts = splits[train].train_test_split(test_size=size, seed=0, load_from_cache_file=False)
        sources["train"] = source(train, parts["train"], "train without validation")
        sources["validation"] = source(train, parts["test"], "validation from train")
    return Task(name, lambda: columns.classes, sources)


def _prepare(builder: Any) -> None:
    """Make the data set's Arrow files, or make them anew if they are not what was made."""
    folder = Path(builder.cache_dir)
    with waiting_lock(folder.with_name(f".{folder.name}.checked.lock"), f"making {folder}"):
        if folder.is_dir() and not _is_sound(folder):
            written = (folder / CHECKSUMS).exists()
            reason = "is not what was written there" if written else "has no checksums"
            log.warning("%s %s: it is made anew", folder, reason)
            shutil.rmtree(folder)
        builder.download_and_prepare()
        if not (folder / CHECKSUMS).exists():
            write_json(folder / CHECKSUMS, _checksums(folder))


def _is_sound(folder: Path) -> bool:
    checksums = folder / CHECKSUMS
    return checksums.exists() and read_json(checksums) == _checksums(folder)


def _checksums(folder: Path) -> dict[str, str]:
    """File → checksum; which rows went into the validation split is drawn anew each time."""
    files = [file for file in sorted(folder.glob("*.arrow")) if not file.name.startswith("cache-")]
    return {file.name: file_checksum(file) for file in files}


def _split_name(address: DatasetAddress, split: Split, splits: Any) -> str | None:
    if split in address.splits:
        return address.splits[split]
    # A split that another one of ours is made of does not count for this one.
    free = [name for name in splits if name not in address.splits.values()]
    return next((name for name in _SPLIT_NAMES[split] if name in free), None)


def _columns(address: DatasetAddress, features: Any) -> _Columns:
    import datasets

    def choose(wanted: str | None, kind: type) -> list[str]:
        if wanted is not None:
            return [wanted] if wanted in features else []
        return [name for name, feature in features.items() if isinstance(feature, kind)]

    images = choose(address.image, datasets.Image)
    labels = choose(address.label, datasets.ClassLabel)
    if len(images) != 1 or len(labels) != 1:
        raise UserError(
            f"{address.path} needs one image and one class-label column; it has "
            f"{', '.join(features)}"
        )
    classes = address.classes or tuple(features[labels[0]].names)
    return _Columns(images[0], labels[0], classes)


def _file_hash(file: str) -> str:
    """Hash of a local file; the hub's address of a file holds the hash of its commit."""
    return file if "://" in file else file_sha256(Path(file))
