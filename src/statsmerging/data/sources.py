"""From a data set as it is published to a task: classes by name, and three splits.

Where the files lie is not known here (``local_folder``, ``hugging_face``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from statsmerging.data.pictures import DECODER, DIGEST_BYTES, decode, image_digest
from statsmerging.data.settings import DatasetAddress
from statsmerging.data.suites import SPLITS, ImageSource, Split, Task
from statsmerging.errors import UserError, shown
from statsmerging.progress import track
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import json_sha256, key_of

#: Share of the training images that become the validation split where there is none, and the
#: most it takes (the field's convention, seed 0).
VALIDATION_SHARE = 0.1


VALIDATION_LIMIT = 5000


#: Our split → what data sets call it, in any mixture of capitals; the first one found is taken.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


#: A class as the data tell it: by its name or by a number.
Label = str | int


class PublishedSplit(Protocol):
    """A split as it is published: encoded pictures and the classes that the data tell."""

    @property
    def labels(self) -> Sequence[Label | None]:
        """Class of each picture; ``None`` where the data do not tell it."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """All class names in their published order, where there is one."""

    def contents(self) -> list[str]:
        """Hashes of what the pictures are read from."""

    def encoded(self) -> Iterator[tuple[str, bytes]]:
        """Where each picture is, for messages, and its file's bytes; in the published order."""


@dataclass(frozen=True, eq=False)
class _Source:
    """A split of a task: some pictures of a published split, decoded when they are asked for.

    Attributes:
        rows: which pictures of the published split, in this order.
        targets: their classes' places; -1 where a class is not known.
        scratch: folder for a temporary file.
    """

    published: PublishedSplit = field(repr=False)
    rows: np.ndarray
    targets: np.ndarray
    scratch: Path

    @cached_property
    def fingerprint(self) -> str:
        chosen = [self.rows.tolist(), self.targets.tolist()]
        return json_sha256([DECODER, *chosen, *self.published.contents()])

    def __len__(self) -> int:
        return len(self.rows)

    def images(self) -> Iterator[Image.Image]:
        for where, data in _in_order(self.published.encoded(), self.rows.tolist(), self.scratch):
            yield decode(data, where)

    def labels(self) -> np.ndarray:
        return self.targets


def choose_splits(
    where: object, available: Collection[str], given: Mapping[Split, str]
) -> dict[Split, str]:
    """Our splits → the names of the published ones they are made of.

    Args:
        where: the data set, for the message.
        available: names of the published splits.
        given: the names that are not obvious; a split that is named here serves no other one.

    Raises:
        UserError: no train or no test split, or two whose names differ in capitals alone.
    """
    chosen: dict[Split, str] = {}
    for split, usual in SPLIT_NAMES.items():
        free = [name for name in usual if name not in given.values()]
        for wanted in [given[split]] if split in given else free:
            found = [name for name in available if name.casefold() == wanted.casefold()]
            if len(found) > 1:
                raise UserError(f"{where} has splits {' and '.join(found)}: keep one of them")
            if found:
                chosen[split] = found[0]
                break
    if "train" not in chosen or "test" not in chosen:
        raise UserError(f"{where} needs a train and a test split; it has {few(sorted(available))}")
    return chosen


def choose_columns(
    where: object, features: Mapping[str, Mapping[str, Any]], address: DatasetAddress
) -> tuple[str, str | None]:
    """Names of the image and of the label column; no label column where it is not obvious.

    Args:
        where: the data set or the file, for the message.
        features: column → its description, as ``datasets`` writes it into its files.

    Raises:
        UserError: not one image column, or a named column is not there.
    """

    def of_kind(kind: str) -> list[str]:
        return [name for name, feature in features.items() if feature.get("_type") == kind]

    images = [address.image] if address.image else of_kind("Image")
    labels = [address.label] if address.label else of_kind("ClassLabel")
    if not labels and "label" in features:
        labels = ["label"]
    if len(images) != 1 or len(labels) > 1 or images[0] not in features:
        raise wrong_columns(where, features)
    return images[0], labels[0] if labels and labels[0] in features else None


def wrong_columns(where: object, features: Mapping[str, Mapping[str, Any]]) -> UserError:
    """The error that says which columns there are, and where to name the right ones."""
    has = ", ".join(
        f"{shown(str(name))} ({feature.get('dtype', feature.get('_type'))})"
        for name, feature in features.items()
    )
    return UserError(
        f"{where} needs one image and one label column; it has {has}: name them with suite.image "
        "and suite.label"
    )


def told_label(value: object, names: Sequence[str] | None, where: object) -> Label | None:
    """The class that one value of a label column tells.

    Args:
        names: class names in label order, where the column has them.

    Raises:
        UserError: neither text nor a whole number, or a number that has no name.
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
    """The encoded picture that one value of an image column holds.

    Raises:
        UserError: no picture, or the path or the address of one: what lies elsewhere is not read.
    """
    inside, place = value, value
    if isinstance(value, Mapping):
        inside, place = value.get("bytes"), value.get("path")
    if isinstance(inside, bytes) and inside:
        return inside
    if isinstance(place, str) and place:
        raise UserError(
            f"{where}: {shown(place)} lies outside the file and is not read; put the pictures into "
            "it, or make an image folder"
        )
    raise UserError(f"{where} holds no picture")


def published_task(
    name: str,
    where: object,
    published: Mapping[Split, PublishedSplit],
    given: Sequence[str] | None,
    *,
    cache: Path,
) -> Task:
    """The task that the splits of a data set make.

    Where there is no validation split, a part of the training images becomes one.

    Args:
        name: of the task, as it stands in tables.
        where: the data set, for messages.
        published: of train and test at least.
        given: class names in label order, in place of the published ones.
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
    classes, places = _classes(where, splits, given)
    targets = {
        split: _targets(part.labels, places, classes, f"{where}, {split} split")
        for split, part in splits.items()
    }
    rows = {split: np.arange(len(part)) for split, part in targets.items()}
    made_of: dict[Split, Split] = {split: split for split in splits}
    if "validation" not in splits:
        made_of["validation"] = "train"
        rows["train"], rows["validation"] = _cut(where, name, splits["train"], cache)
    sources: dict[Split, ImageSource] = {
        split: _Source(
            splits[made_of[split]], rows[split], targets[made_of[split]][rows[split]], cache
        )
        for split in SPLITS
    }
    return Task(name, lambda: classes, sources)


def _classes(
    where: object, splits: Mapping[Split, PublishedSplit], given: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[Label, int]]:
    """The class names, and the place of the class that each possible label tells."""
    declared = next((split.names for split in splits.values() if split.names), None)
    labels = {label for split in splits.values() for label in split.labels if label is not None}
    ordered: Sequence[Label]
    if declared is not None or given is not None:
        ordered = declared or tuple(given or ())
        places = dict[Label, int](enumerate(range(len(ordered))))
    elif len({type(label) for label in labels}) > 1:
        raise UserError(f"{where}: labels are text in one place and numbers in another")
    else:
        ordered = sorted(labels)
        places = {}
    places |= {label: place for place, label in enumerate(ordered)}
    names = tuple(map(str, given or ordered))
    if len(names) != len(ordered):
        raise UserError(f"{where}: {len(names)} class names are given for {len(ordered)} classes")
    if len(set(names)) < len(names) or len(set(ordered)) < len(ordered):
        raise UserError(f"{where}: two classes have the same name")
    if len(names) < 2:
        raise UserError(f"{where} has one class, {shown(names[0])}; a task needs two or more")
    return names, places


def _targets(
    labels: Sequence[Label | None], places: Mapping[Label, int], classes: Sequence[str], where: str
) -> np.ndarray:
    unknown = sorted({str(label) for label in labels if label is not None and label not in places})
    if unknown:
        raise UserError(f"{where}: {few(unknown)} is none of the classes {few(classes)}")
    return np.array([-1 if label is None else places[label] for label in labels], dtype=np.int64)


def few(names: Sequence[str]) -> str:
    """Foreign names as they may stand in a message."""
    return ", ".join(map(shown, names[:8])) + (", …" if len(names) > 8 else "") or "none"


def _cut(
    where: object, name: str, train: PublishedSplit, cache: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the validation split, for a data set without the latter.

    They are drawn at random; a picture that is drawn for validation while an equal one is not
    stays with its like in the training split.
    """
    count = len(train.labels)
    size = min(VALIDATION_LIMIT, max(1, int(VALIDATION_SHARE * count)))
    order = np.random.default_rng(0).permutation(count)
    validation, rest = order[:size], order[size:]
    digests = _digests(name, train, cache)
    trained = {digests[row].tobytes() for row in rest}
    is_shared = np.array([digests[row].tobytes() in trained for row in validation])
    if is_shared.all() or not len(rest):
        raise UserError(
            f"{where} has no validation split, and {count} training picture(s) that cannot be "
            "divided: too few of them are different"
        )
    return np.concatenate([rest, validation[is_shared]]), validation[~is_shared]


def _digests(name: str, split: PublishedSplit, cache: Path) -> np.ndarray:
    """Hash of each picture, uint8, N × 16; from the cache if they are there."""

    def write(path: Path) -> None:
        encoded = track(split.encoded(), f"comparing {name} train", total=len(split.labels))
        digests = b"".join(image_digest(decode(data, where)) for where, data in encoded)
        path.write_bytes(digests)

    key = key_of([DECODER, *split.contents()])
    path = Cache(cache).file("digests", f"{key}.bin", write)
    return np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def _in_order(
    encoded: Iterator[tuple[str, bytes]], rows: Sequence[int], scratch: Path
) -> Iterator[tuple[str, bytes]]:
    """The chosen pictures of a stream; where their order is another, they wait on disk."""
    if all(first < second for first, second in pairwise(rows)):
        wanted = set(rows)
        yield from (item for row, item in enumerate(encoded) if row in wanted)
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as waiting:
        places = []
        for where, data in encoded:
            places.append((where, waiting.tell(), len(data)))
            waiting.write(data)
        for row in rows:
            where, start, size = places[row]
            waiting.seek(start)
            yield where, waiting.read(size)
