"""Decoded and resized images, computed once, cached and memory-mapped; and the check of splits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.choices import Split
from statsmerging.data.corruptions.corrupt import corrupt, corruption_key
from statsmerging.data.pictures import Preprocess, image_digest
from statsmerging.data.settings import CLEAN, CorruptionSettings
from statsmerging.data.suites import ImageSource, Suite, Task
from statsmerging.errors import UserError
from statsmerging.progress import track
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of

#: Agreement on fewer images of a task tells little.
FEWEST_HELD_OUT = 8


@dataclass(frozen=True)
class ImageSplit:
    """One split of one task, ready for a backbone.

    Attributes:
        images: uint8, N × 3 × S × S, memory-mapped; corrupted if the experiment asks for it.
        labels: ground truth, int64, N, for evaluation and fine-tuning alone.
        digests: uint8, N × 16, hash of each decoded image, before any corruption and resize.
        key: hash of content, corruption and geometry.
    """

    images: Tensor
    labels: Tensor
    digests: Tensor
    key: str

    def __len__(self) -> int:
        return self.images.shape[0]

    def sample(self, count: int) -> ImageSplit:
        """At most ``count`` images, evenly spread over the split."""
        if count >= len(self):
            return self
        rows = torch.linspace(0, len(self) - 1, count).long()
        return self._rows(rows, f"{count} evenly spread")

    def draw(self, count: int, seed: int) -> ImageSplit:
        """At most ``count`` random images; of one seed, a smaller draw is part of a larger one."""
        if count >= len(self):
            return self
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self), generator=generator)[:count]
        return self._rows(rows, f"{count} drawn with seed {seed}")

    def held_out(self, share: float) -> tuple[ImageSplit, ImageSplit]:
        """The images to learn from, and those that are held out of learning, both in their order.

        The sides are those of ``held_out_rows``: the same in every geometry, with every corruption
        and seed.

        Args:
            share: of the images that are held out, below 1.

        Raises:
            UserError: all images are copies of one.
        """
        held = held_out_rows(self.digests, share)
        if held is None:
            raise UserError(
                "learning.held_out needs at least two different images of each task; "
                "learning.held_out=0 does without"
            )
        how = f"by content, {share} held out"
        return self._rows((~held).nonzero()[:, 0], f"rest {how}"), self._rows(
            held.nonzero()[:, 0], how
        )

    def _rows(self, rows: Tensor, how: str) -> ImageSplit:
        key = key_of([self.key, how])
        return ImageSplit(self.images[rows], self.labels[rows], self.digests[rows], key)


def held_out_rows(digests: Tensor, share: float) -> Tensor | None:
    """Which of N images are held out of learning, bool, N; ``None``: all are copies of one.

    At least ``FEWEST_HELD_OUT`` images are held out, and at most half of them all. The content of
    an image decides on which side it is: copies of one image are on the same side.

    Args:
        digests: uint8, N × 16, hash of each image.
        share: of the images that are held out, below 1.
    """
    wanted = min(max(math.ceil(share * len(digests)), FEWEST_HELD_OUT), len(digests) // 2)
    distinct, copies = np.unique(digests.numpy(), axis=0, return_inverse=True)
    if len(distinct) < 2:
        return None
    # They are in ascending order here; that of digests has nothing to do with the images.
    below = np.bincount(copies).cumsum()
    last = min(int(np.searchsorted(below, wanted)), len(distinct) - 2)
    return torch.from_numpy(copies.reshape(-1) <= last)


def load_split(
    source: ImageSource,
    preprocess: Preprocess,
    cache: Cache,
    *,
    name: str,
    corruption: CorruptionSettings | None = None,
) -> ImageSplit:
    """The split's images in the backbone's geometry, from the cache if it has them.

    Args:
        name: shown beside the progress bar.
        corruption: applied to the decoded images; ``None`` leaves them clean.

    Raises:
        UserError: there is no image, or one cannot be read or scaled (names it).
    """
    corrupted = [] if corruption is None else [corruption_key(corruption)]
    key = key_of([source.fingerprint, preprocess.geometry_key, *corrupted])

    def write(path: Path) -> None:
        images, digests = [], []
        decoded = track(source.images(), f"decoding {name}", total=len(source))
        for row, image in enumerate(decoded):
            try:
                shown = image if corruption is None else corrupt(image, corruption)
                images.append(preprocess.resize(shown))
            except UserError as error:
                raise UserError(f"{name}, image {row}: {error}") from error
            digests.append(np.frombuffer(image_digest(image), dtype=np.uint8))
        if not images:
            raise UserError(f"{name} holds no image")
        tensors = {
            "images": torch.from_numpy(np.stack(images)),
            "labels": torch.from_numpy(source.labels()),
            "digests": torch.from_numpy(np.stack(digests)),
        }
        save_file(tensors, path)

    def read(path: Path) -> ImageSplit:
        tensors = load_file(path)
        return ImageSplit(tensors["images"], tensors["labels"], tensors["digests"], key)

    return cache.load("images", f"{key}.safetensors", write, read)


class SuiteImages:
    """All splits of a suite for one backbone, each loaded when it is first needed.

    Args:
        corruption: applied to the splits that its protocol names.

    Raises:
        UserError: the corruption names a task that the suite does not have.
    """

    def __init__(
        self,
        suite: Suite,
        preprocess: Preprocess,
        cache: Cache,
        corruption: CorruptionSettings = CLEAN,
    ) -> None:
        self.suite = suite
        self.preprocess = preprocess
        self.cache = cache
        self.corruption = corruption
        known = [task.name for task in suite.tasks]
        unknown = [name for name in corruption.tasks or [] if name not in known]
        if unknown:
            raise UserError(
                f"corruption.tasks: the suite has no task {', '.join(unknown)}; it has "
                f"{', '.join(known)}"
            )
        self._loaded: dict[tuple[str, Split], ImageSplit] = {}

    def split(self, task: Task, split: Split) -> ImageSplit:
        """One split of one task."""
        address = (task.name, split)
        if address not in self._loaded:
            corrupted = self.corruption.reaches(task.name, split)
            self._loaded[address] = load_split(
                task.sources[split],
                self.preprocess,
                self.cache,
                name=f"{task.name} {split}",
                corruption=self.corruption if corrupted else None,
            )
        return self._loaded[address]

    def of(self, suite: Suite) -> SuiteImages:
        """The images of another suite that is made of the same tasks."""
        return SuiteImages(suite, self.preprocess, self.cache, self.corruption)

    def fingerprints(self) -> dict[str, str]:
        """``task/split`` → content hash, for the manifest."""
        return {
            f"{task.name}/{split}": source.fingerprint
            for task in self.suite.tasks
            for split, source in task.sources.items()
        }


def check_disjoint(tasks: Mapping[str, Mapping[Split, ImageSplit]]) -> None:
    """Check by image hash that no two splits of a task share an image.

    Args:
        tasks: task name → its splits.

    Raises:
        UserError: gives the number of shared images for each task and pair of splits.
    """
    found = []
    for task, splits in tasks.items():
        digests = {
            name: {row.tobytes() for row in split.digests.numpy()} for name, split in splits.items()
        }
        for first, second in combinations(digests, 2):
            shared = len(digests[first] & digests[second])
            if shared:
                found.append(f"{task}: {shared} image(s) in both {first} and {second}")
    if found:
        raise UserError(f"splits must not share images; {'; '.join(found)}")
