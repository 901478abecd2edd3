"""Suites: named sets of classification tasks, each with train, validation and test images.

There are three kinds of suites: the embedded one, below; folders of local data
(``folder_suite.py``); and data sets of the Hugging Face hub or of a mirror of it (``hub.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from statsmerging.choices import SPLITS, Split
from statsmerging.data import embedded
from statsmerging.errors import UserError
from statsmerging.progress import working
from statsmerging.store.hashing import code_sha256, json_sha256

#: A picture that is decoded when it is called, by whatever thread.
Undecoded = Callable[[], Image.Image]


class ImageSource(Protocol):
    """The images and labels of one split of one task."""

    @property
    def fingerprint(self) -> str:
        """Hash of the content; equal fingerprints promise equal images and labels."""

    def __len__(self) -> int:
        """Number of images."""

    @property
    def digests(self) -> np.ndarray | None:
        """Hash of each decoded image, uint8, N × 16; ``None`` if nobody has decoded them yet."""

    def undecoded(self) -> Iterator[Undecoded]:
        """The images in order; each is decoded when it is called."""

    def labels(self) -> np.ndarray:
        """Ground truth, int64, N. Only evaluation and fine-tuning use it."""


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: as it is written in tables and file names.
        read_classes: returns the class names in label order; called when they are first needed,
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
        name: as it is written in tables.
        seen: tasks whose experts are merged.
        unseen: tasks that are only scored.
        pretraining: labelled images to pre-train a backbone on, if the suite has any.
    """

    name: str
    seen: tuple[Task, ...]
    unseen: tuple[Task, ...] = ()
    pretraining: ImageSource | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The seen tasks, then the unseen ones."""
        return self.seen + self.unseen

    def hold_out(self, names: Collection[str]) -> Suite:
        """The suite with these seen tasks made unseen; they precede the other unseen tasks."""
        held = tuple(task for task in self.seen if task.name in names)
        seen = tuple(task for task in self.seen if task.name not in names)
        return replace(self, seen=seen, unseen=held + self.unseen)

    def first(self, count: int) -> Suite:
        """The suite with only its first ``count`` seen tasks, and all unseen ones."""
        return replace(self, seen=self.seen[:count])


def choose_tasks(
    available: Collection[str], seen: list[str] | None, unseen: list[str], *, where: str
) -> tuple[list[str], list[str]]:
    """Names of the seen and the unseen tasks; ``seen=None`` takes all that are not unseen.

    Args:
        where: the place of the available tasks, for messages.

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


# The embedded suite: small tasks made of what installed packages contain, without any download.

#: Packages whose images, fonts or resampling determine the pixels.
_PACKAGES = ("numpy", "pillow", "scikit-image", "scikit-learn", "matplotlib")

#: With this many images, a short pre-training sees each about three times and does not memorise it.
PRETRAINING_IMAGES = 12_000


@dataclass(frozen=True)
class _EmbeddedSource:
    """Images of the embedded suite, drawn when they are first needed.

    Attributes:
        identity: what is hashed beside the code that draws the images.
        draw: draws them, or returns those that were drawn before.
    """

    identity: tuple[str, ...]
    draw: Callable[[], embedded.LabeledImages]
    digests: None = None

    @property
    def fingerprint(self) -> str:
        return json_sha256([_generator_hash(), *self.identity])

    def __len__(self) -> int:
        return len(self.labels())

    def undecoded(self) -> Iterator[Undecoded]:
        return (partial(Image.fromarray, pixels) for pixels in self.draw().images)

    def labels(self) -> np.ndarray:
        return self.draw().labels


def embedded_suite(tasks: list[str] | None = None, unseen: list[str] | None = None) -> Suite:
    """Eight seen and two unseen tasks, or any choice among them by name.

    Raises:
        UserError: an unknown task name, or fewer than two seen tasks.
    """

    def source(name: str, split: Split) -> _EmbeddedSource:
        return _EmbeddedSource((name, split), lambda: _build(name).splits[split])

    def task(name: str) -> Task:
        sources = {split: source(name, split) for split in SPLITS}
        return Task(name, lambda: _build(name).classes, sources)

    unseen = list(embedded.UNSEEN) if unseen is None else unseen
    names = choose_tasks(embedded.TASKS, tasks, unseen, where="the embedded suite")
    seen_tasks, unseen_tasks = (tuple(map(task, part)) for part in names)
    pretraining = _EmbeddedSource(("pretraining",), _pretraining_images)
    return Suite("embedded", seen_tasks, unseen_tasks, pretraining)


@cache
def _build(name: str) -> embedded.EmbeddedTask:
    with working(f"drawing {name}"):
        return embedded.build_task(name)


@cache
def _pretraining_images() -> embedded.LabeledImages:
    with working("drawing images for pre-training"):
        return embedded.pretraining_images(PRETRAINING_IMAGES)[0]


@cache
def _generator_hash() -> str:
    return code_sha256(Path(embedded.__file__).parent, _PACKAGES)
