"""Suites: named sets of classification tasks, each with train, validation and test images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np
from PIL import Image

from statsmerging.errors import UserError

Split = Literal["train", "validation", "test"]


SPLITS: tuple[Split, ...] = get_args(Split)


class ImageSource(Protocol):
    """One split of one task, where it comes from."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content; equal fingerprints promise equal images and labels."""

    def __len__(self) -> int:
        """Number of images."""

    def images(self) -> Iterator[Image.Image]:
        """Decode the images in order."""

    def labels(self) -> np.ndarray:
        """Ground truth, int64, N. Used by evaluation and fine-tuning alone."""


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: as it stands in tables and file names.
        read_classes: gives the class names in label order; called when they are first needed,
            because an embedded task has to be built to know them.
        sources: the three splits.
    """

    name: str
    read_classes: Callable[[], tuple[str, ...]]
    sources: Mapping[Split, ImageSource]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self.read_classes()


@dataclass(frozen=True)
class Suite:
    """The tasks of an experiment.

    Attributes:
        name: as it stands in tables.
        seen: tasks whose experts are merged.
        unseen: tasks that are only scored.
        pretraining: labelled images to pre-train a backbone on, if the suite brings any.
    """

    name: str
    seen: tuple[Task, ...]
    unseen: tuple[Task, ...] = ()
    pretraining: ImageSource | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.seen + self.unseen

    def hold_out(self, names: Collection[str]) -> Suite:
        """The suite with these of its seen tasks among the unseen ones, in front."""
        held = tuple(task for task in self.seen if task.name in names)
        seen = tuple(task for task in self.seen if task.name not in names)
        return replace(self, seen=seen, unseen=held + self.unseen)

    def first(self, count: int) -> Suite:
        """The suite with the first of its seen tasks alone, and all unseen ones."""
        return replace(self, seen=self.seen[:count])


def choose_tasks(
    available: Collection[str], seen: list[str] | None, unseen: list[str], *, where: str
) -> tuple[list[str], list[str]]:
    """Names of the seen and the unseen tasks; ``seen=None`` takes all that are not unseen.

    Raises:
        UserError: an unknown or repeated name, a task in both lists, or fewer than two tasks.
    """
    names = [name for name in available if name not in unseen] if seen is None else seen
    unknown = [name for name in [*names, *unseen] if name not in available]
    if unknown:
        raise UserError(
            f"suite.tasks: {where} has no task {', '.join(unknown)}; it has {', '.join(available)}"
        )
    both = sorted(set(names) & set(unseen))
    if both:
        raise UserError(f"suite.tasks and suite.unseen both name {', '.join(both)}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"suite.tasks names {', '.join(repeated)} more than once")
    if len(names) < 2:
        raise UserError(
            f"merging needs at least two tasks, {where} gives {len(names)}: {', '.join(names)}"
        )
    return names, unseen
