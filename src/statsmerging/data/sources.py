"""From the splits of a published data set to a task: columns, classes by name, three splits.

Where the splits are stored is not known here: see ``local_splits.py`` and ``hub.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from statsmerging.choices import SPLITS, Split
from statsmerging.data.decoding import as_rows, picture_digests
from statsmerging.data.pictures import DECODER, decode
from statsmerging.data.settings import DatasetLayout
from statsmerging.data.suites import ImageSource, Task, Undecoded
from statsmerging.errors import UserError, shown
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import json_sha256, key_of

#: Share of the training images that become the validation split if there is none, and the largest
#: number of them (the convention of the field; seed 0).
VALIDATION_SHARE = 0.1
VALIDATION_LIMIT = 5000

#: Our split → usual names of it, in any capitalisation; the first one that exists is taken.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}

#: A label as it is published: the name of a class, or a number.
Label = str | int

#: ``Column.type`` of pictures and of class labels with names; both are words of ``datasets``.
IMAGE, CLASS_LABEL = "Image", "ClassLabel"


@dataclass(frozen=True)
class Column:
    """A column of a data set.

    Attributes:
        type: ``IMAGE``, ``CLASS_LABEL``, or the type of the values.
        names: class names in label order, of a column of class labels.
    """

    type: str
    names: tuple[str, ...] | None = None


class PublishedSplit(Protocol):
    """A split as it is published: encoded pictures and their labels."""

    @property
    def labels(self) -> Sequence[Label | None]:
        """Label of each picture; ``None`` if it is not published."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """All class names in their published order, if there is one."""

    def content_hashes(self) -> list[str]:
        """Hashes of the files that hold the pictures."""

    def encoded_pictures(self) -> Iterator[tuple[str, bytes]]:
        """Place of each picture, for messages, and the bytes of its file; in published order."""


@dataclass(frozen=True, eq=False)
class _Source:
    """A split of a task: some pictures of a published split, decoded when they are needed.

    Attributes:
        rows: positions in the published split, in the order of this split.
        targets: class indices; -1 if a picture has no label.
        scratch: folder for a temporary file.
        digests: of the decoded pictures, where the published split had to be divided.
    """

    published: PublishedSplit = field(repr=False)
    rows: np.ndarray
    targets: np.ndarray
    scratch: Path
    digests: np.ndarray | None = None

    @cached_property
    def fingerprint(self) -> str:
        chosen = [self.rows.tolist(), self.targets.tolist()]
        return json_sha256([DECODER, *chosen, *self.published.content_hashes()])

    def __len__(self) -> int:
        return len(self.rows)

    def undecoded(self) -> Iterator[Undecoded]:
        pictures = self.published.encoded_pictures()
        for where, data in _select(pictures, self.rows.tolist(), self.scratch):
            yield partial(decode, data, where)

    def labels(self) -> np.ndarray:
        return self.targets


def choose_splits(
    where: object, available: Collection[str], layout: DatasetLayout
) -> dict[Split, str]:
    """Our splits → names of the published splits.

    Args:
        where: the data set, for messages.
        available: names of the published splits.
        layout: a published split that it names for one of ours serves as no other one.

    Raises:
        UserError: no train or no test split, or two whose names differ in capitals alone.
    """
    chosen: dict[Split, str] = {}
    for split, usual in SPLIT_NAMES.items():
        free = [name for name in usual if name not in layout.splits.values()]
        for wanted in [layout.splits[split]] if split in layout.splits else free:
            found = [name for name in available if name.casefold() == wanted.casefold()]
            if len(found) > 1:
                raise UserError(f"{where} has splits {' and '.join(found)}: keep one of them")
            if found:
                chosen[split] = found[0]
                break
    if "train" not in chosen or "test" not in chosen:
        has = first_few(sorted(available))
        raise UserError(f"{where} needs a train and a test split; it has {has}")
    return chosen


def choose_columns(
    where: object, columns: Mapping[str, Column], layout: DatasetLayout
) -> tuple[str, str | None]:
    """Names of the image and of the label column; the latter is ``None`` if it is ambiguous.

    Args:
        where: the data set or the file, for messages.

    Raises:
        UserError: no image column or several, or a named column does not exist.
    """

    def of_type(wanted: str) -> list[str]:
        return [name for name, column in columns.items() if column.type == wanted]

    images = [layout.image] if layout.image else of_type(IMAGE)
    labels = [layout.label] if layout.label else of_type(CLASS_LABEL)
    if not labels and "label" in columns:
        labels = ["label"]
    if len(images) != 1 or len(labels) > 1 or images[0] not in columns:
        raise wrong_columns(where, columns)
    return images[0], labels[0] if labels and labels[0] in columns else None


def wrong_columns(where: object, columns: Mapping[str, Column]) -> UserError:
    """The error that lists the existing columns and the settings that name the right ones."""
    has = ", ".join(f"{shown(str(name))} ({column.type})" for name, column in columns.items())
    return UserError(
        f"{where} needs one image and one label column; it has {has}: name them with suite.image "
        "and suite.label"
    )


def read_label(value: object, names: Sequence[str] | None, where: object) -> Label | None:
    """The label that a value of a label column stands for.

    Args:
        names: class names in label order, if the column has them.
        where: the data set or the file, for messages.

    Raises:
        UserError: neither text nor a whole number, or a number without a name.
    """
    if value is None or value == -1 or value != value:  # NaN is how pandas writes None
        return None
    if isinstance(value, str):
        return value
    if not isinstance(value, int | float) or not float(value).is_integer():
        raise UserError(
            f"{where}: label {shown(str(value))} is a {type(value).__name__}; expected are text "
            "and whole numbers"
        )
    number = int(value)
    if names is None:
        return number
    if not 0 <= number < len(names):
        raise UserError(
            f"{where}: label {number}, expected 0 to {len(names) - 1} (-1 marks a picture "
            "published without its label)"
        )
    return names[number]


def picture_bytes(value: object, where: str) -> bytes:
    """The encoded picture that a value of an image column holds.

    Raises:
        UserError: no picture, or only the path or address of one: such files are not read.
    """
    inside, path = value, value
    if isinstance(value, Mapping):
        inside, path = value.get("bytes"), value.get("path")
    if isinstance(inside, bytes) and inside:
        return inside
    if isinstance(path, str) and path:
        raise UserError(
            f"{where}: {shown(path)} lies outside the file and is not read; put the pictures into "
            "it, or make an image folder"
        )
    raise UserError(f"{where} holds no picture")


def published_task(
    name: str,
    where: object,
    published: Mapping[Split, PublishedSplit],
    class_names: Sequence[str] | None,
    *,
    cache: Path,
) -> Task:
    """The task made of the splits of a data set.

    If there is no validation split, a part of the training images becomes one.

    Args:
        name: of the task, as it is written in tables.
        where: the data set, for messages.
        published: at least train and test.
        class_names: in label order, in place of the published ones.
        cache: folder for the digests of pictures, and for a temporary file.

    Raises:
        UserError: an empty split, train or test pictures without a label, labels that fit no class.
    """
    splits = {split: published[split] for split in SPLITS if split in published}
    for split, part in splits.items():
        if not part.labels:
            raise UserError(f"{where}: the {split} split is empty")
        unlabeled = sum(label is None for label in part.labels)
        if unlabeled and split != "validation":
            raise UserError(
                f"{where}: {unlabeled} {split} picture(s) have no label (none, or -1); only "
                "validation pictures need none"
            )
    classes, index_of = _classes(where, splits, class_names)
    targets = {}
    for split, part in splits.items():
        known = [label for label in part.labels if label is not None]
        unknown = sorted({str(label) for label in known if label not in index_of})
        if unknown:
            raise UserError(
                f"{where}, {split} split: {first_few(unknown)} is none of the classes "
                f"{first_few(classes)}"
            )
        indices = [-1 if label is None else index_of[label] for label in part.labels]
        targets[split] = np.array(indices, dtype=np.int64)
    rows = {split: np.arange(len(part)) for split, part in targets.items()}
    made_of: dict[Split, Split] = {split: split for split in splits}
    digests: dict[Split, np.ndarray] = {}
    if "validation" not in splits:
        made_of["validation"] = "train"
        all_of_train = _published_digests(name, splits["train"], cache)
        rows["train"], rows["validation"] = _divide(where, all_of_train)
        digests = {split: all_of_train[rows[split]] for split in ("train", "validation")}
    sources: dict[Split, ImageSource] = {
        split: _Source(
            splits[made_of[split]],
            rows[split],
            targets[made_of[split]][rows[split]],
            cache,
            digests.get(split),
        )
        for split in SPLITS
    }
    return Task(name, lambda: classes, sources)


def _classes(
    where: object, splits: Mapping[Split, PublishedSplit], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[Label, int]]:
    """The class names, and the class index of each possible label."""
    declared = next((split.names for split in splits.values() if split.names), None)
    labels = {label for split in splits.values() for label in split.labels if label is not None}
    ordered: Sequence[Label]
    index_of: dict[Label, int] = {}
    if declared is not None or class_names is not None:
        ordered = declared or tuple(class_names or ())
        # A split without names has numbers: they are indices of the named classes.
        index_of |= enumerate(range(len(ordered)))
    elif len({type(label) for label in labels}) > 1:
        raise UserError(f"{where}: labels are text in one place and numbers in another")
    else:
        ordered = sorted(labels)
    index_of |= {label: index for index, label in enumerate(ordered)}
    names = tuple(map(str, class_names or ordered))
    if len(names) != len(ordered):
        raise UserError(f"{where}: {len(names)} class names are given for {len(ordered)} classes")
    if len(set(names)) < len(names) or len(set(ordered)) < len(ordered):
        raise UserError(f"{where}: two classes have the same name")
    if len(names) < 2:
        raise UserError(f"{where} has one class, {shown(names[0])}; a task needs two or more")
    return names, index_of


def first_few(names: Sequence[str]) -> str:
    """The first of some names from foreign files, in a form that is safe in a message."""
    return ", ".join(map(shown, names[:8])) + (", …" if len(names) > 8 else "") or "none"


def _published_digests(name: str, published: PublishedSplit, cache: Path) -> np.ndarray:
    """Digests of all training pictures as they are published, N × 16."""

    def write(path: Path) -> None:
        pictures = published.encoded_pictures()
        undecoded = (partial(decode, data, place) for place, data in pictures)
        count = len(published.labels)
        path.write_bytes(picture_digests(undecoded, f"comparing {name} train", total=count))

    key = key_of([DECODER, *published.content_hashes()])
    return as_rows(Cache(cache).file("digests", f"{key}.bin", write).read_bytes())


def _divide(where: object, digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the validation split, for a data set without the latter.

    Validation rows are drawn at random. A drawn picture that equals one that was not drawn stays in
    the training split, so that equal pictures are never in both splits.

    Args:
        digests: of the published training pictures, N × 16.
    """
    count = len(digests)
    size = min(VALIDATION_LIMIT, max(1, int(VALIDATION_SHARE * count)))
    order = np.random.default_rng(0).permutation(count)
    drawn, rest = order[:size], order[size:]
    kept_for_training = {digests[row].tobytes() for row in rest}
    is_shared = np.array([digests[row].tobytes() in kept_for_training for row in drawn])
    if is_shared.all() or not len(rest):
        raise UserError(
            f"{where} has no validation split, and {count} training picture(s) that cannot be "
            "divided: too few of them are different"
        )
    return np.concatenate([rest, drawn[is_shared]]), drawn[~is_shared]


def _select(
    pictures: Iterator[tuple[str, bytes]], rows: Sequence[int], scratch: Path
) -> Iterator[tuple[str, bytes]]:
    """The pictures at some rows of a stream; if the rows are unordered, a file holds them all."""
    if all(first < second for first, second in pairwise(rows)):
        wanted = set(rows)
        yield from (picture for row, picture in enumerate(pictures) if row in wanted)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as waiting:
        places = []
        for where, data in pictures:
            places.append((where, waiting.tell(), len(data)))
            waiting.write(data)
        for row in rows:
            where, start, size = places[row]
            waiting.seek(start)
            yield where, waiting.read(size)
