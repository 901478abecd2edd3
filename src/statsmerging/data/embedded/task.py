"""Embedded tasks, and how their splits are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IMAGE_SIZE = 32
SPLITS = ("train", "validation", "test")
RENDERED_SIZES: Mapping[str, int] = {"train": 1000, "validation": 300, "test": 500}

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabeledImages:
    """One split of a task.

    Attributes:
        images: ``uint8`` array of shape ``(N, 32, 32, 3)``, RGB in 0..255.
        labels: ``int64`` array of shape ``(N,)``, indices into the task's classes.
    """

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> LabeledImages:
        """The given rows, in the given order."""
        return LabeledImages(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class EmbeddedTask:
    """A small image classification task that needs no download.

    Attributes:
        name: the task's key in the task table.
        classes: class names; a label is an index into them.
        splits: ``"train"``, ``"validation"`` and ``"test"``, with no image in common.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, LabeledImages]


def generator(key: str) -> np.random.Generator:
    """A random generator that depends on ``key`` alone, the same in every process."""
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def balanced_labels(count: int, classes: int, rng: np.random.Generator) -> Labels:
    """``count`` labels in random order; the counts of any two classes differ by at most one."""
    return rng.permutation(np.arange(count, dtype=np.int64) % classes)


def rendered_task(
    name: str,
    classes: tuple[str, ...],
    render: Callable[[Labels, np.random.Generator], Images],
) -> EmbeddedTask:
    """A task of drawn images: 1,000 / 300 / 500 of them.

    Args:
        name: the task's name, which also seeds the drawing.
        classes: class names.
        render: draws one image per label, as ``uint8`` of shape ``(N, 32, 32, 3)``.
    """
    splits = {}
    for split, count in RENDERED_SIZES.items():
        rng = generator(f"{name}/{split}")
        labels = balanced_labels(count, len(classes), rng)
        splits[split] = LabeledImages(render(labels, rng), labels)
    return EmbeddedTask(name, classes, without_duplicates(splits))


def stratified_split(
    examples: LabeledImages, sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, LabeledImages]:
    """Divide a data set into disjoint splits that all have its class proportions.

    Args:
        examples: the whole data set.
        sizes: examples per split, in the order in which the splits are taken.
        rng: source of the shuffle.

    Raises:
        ValueError: the splits together need more examples than there are.
    """
    if sum(sizes.values()) > len(examples):
        raise ValueError(f"splits need {sum(sizes.values())} of {len(examples)} examples")
    # Sorting by each example's relative rank within its class spreads the classes evenly, so that
    # any contiguous part of the order is stratified.
    relative_rank = np.empty(len(examples))
    for label in np.unique(examples.labels):
        members = rng.permutation(np.flatnonzero(examples.labels == label))
        relative_rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(relative_rank, kind="stable")

    splits, start = {}, 0
    for split, size in sizes.items():
        splits[split] = examples.take(rng.permutation(order[start : start + size]))
        start += size
    return splits


def without_duplicates(splits: Mapping[str, LabeledImages]) -> dict[str, LabeledImages]:
    """Keep only the first of each set of images that agree in every pixel, across all splits."""
    seen: set[bytes] = set()
    unique = {}
    for split, examples in splits.items():
        rows = []
        for row, image in enumerate(examples.images):
            digest = hashlib.sha256(image.tobytes()).digest()
            if digest not in seen:
                seen.add(digest)
                rows.append(row)
        unique[split] = examples.take(np.array(rows, dtype=np.int64))
    return unique
