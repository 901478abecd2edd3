"""The embedded suite: small tasks from inside installed packages, no network, no files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from statsmerging.data import embedded
from statsmerging.data.suites import SPLITS, Split, Suite, Task, choose_tasks
from statsmerging.progress import working
from statsmerging.store.hashing import code_sha256, json_sha256

#: Packages whose images, fonts or resampling determine the pixels.
_PACKAGES = ("numpy", "pillow", "scikit-image", "scikit-learn", "matplotlib")


#: A short pre-training sees each of them about three times and does not learn them by heart.
PRETRAINING_IMAGES = 12_000


@dataclass(frozen=True)
class _EmbeddedSource:
    """A split of an embedded task, made when it is first asked for."""

    task: str
    split: Split

    @property
    def fingerprint(self) -> str:
        return json_sha256([_generator_hash(), self.task, self.split])

    def __len__(self) -> int:
        return len(self.labels())

    def images(self) -> Iterator[Image.Image]:
        return map(Image.fromarray, _build(self.task).splits[self.split].images)

    def labels(self) -> np.ndarray:
        return _build(self.task).splits[self.split].labels


class _PretrainingSource:
    """The generic images on which the micro backbone is pre-trained."""

    @property
    def fingerprint(self) -> str:
        return json_sha256([_generator_hash(), "pretraining"])

    def __len__(self) -> int:
        return len(self.labels())

    def images(self) -> Iterator[Image.Image]:
        return map(Image.fromarray, _pretraining().images)

    def labels(self) -> np.ndarray:
        return _pretraining().labels


def embedded_suite(tasks: list[str] | None = None, unseen: list[str] | None = None) -> Suite:
    """Eight seen and two unseen tasks, or any choice among them by name.

    Raises:
        UserError: an unknown task name, or fewer than two seen tasks.
    """
    names = choose_tasks(
        embedded.TASKS,
        tasks,
        list(embedded.UNSEEN) if unseen is None else unseen,
        where="the embedded suite",
    )
    seen_tasks, unseen_tasks = (tuple(map(_task, part)) for part in names)
    return Suite("embedded", seen_tasks, unseen_tasks, _PretrainingSource())


def _task(name: str) -> Task:
    sources = {split: _EmbeddedSource(name, split) for split in SPLITS}
    return Task(name, lambda: _build(name).classes, sources)


@cache
def _build(name: str) -> embedded.EmbeddedTask:
    with working(f"drawing {name}"):
        return embedded.build_task(name)


@cache
def _pretraining() -> embedded.LabeledImages:
    with working("drawing images for pre-training"):
        return embedded.pretraining_images(PRETRAINING_IMAGES)[0]


@cache
def _generator_hash() -> str:
    return code_sha256(Path(embedded.__file__).parent, _PACKAGES)
