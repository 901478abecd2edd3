"""Decoded and resized images, computed once, cached and memory-mapped; and the check of splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from statsmerging.choices import Split
from statsmerging.data.corruptions.corrupt import corrupt, corruption_key
from statsmerging.data.decoding import as_rows, of_each_picture, picture_digests
from statsmerging.data.pictures import DIGEST_BYTES, Preprocess, image_digest
from statsmerging.data.settings import CLEAN, CorruptionSettings
from statsmerging.data.suites import ImageSource, Suite, Task
from statsmerging.errors import UserError
from statsmerging.progress import track
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of
from statsmerging.store.tensor_file import TensorFile

#: Agreement on fewer images of a task tells little.
FEWEST_HELD_OUT = 8


class SomeImages:
    """Some rows of memory-mapped images; only what is asked for is copied into memory.

    Args:
        images: uint8, N × 3 × S × S.
        rows: int64, M: which of them, in this order.
    """

    def __init__(self, images: Tensor, rows: Tensor) -> None:
        self._images = images
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """M × 3 × S × S."""
        return torch.Size([len(self), *self._images.shape[1:]])

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Some of the images, or one, in memory; ``[:]`` are all."""
        return self._images[self._rows[index]]

    def at(self, rows: Tensor) -> SomeImages:
        """Some of these rows, of the same memory-mapped images."""
        return SomeImages(self._images, self._rows[rows])


#: Images of a split, or of a part of it; both are indexed alike.
Images = Tensor | SomeImages


def in_batches(
    images: Images, size: int, description: str, *, announced: bool = True
) -> Iterator[Tensor]:
    """The images in their order, at most ``size`` at a time in memory.

    Args:
        description: shown beside the progress bar.
        announced: whether a line says so where there is no terminal.
    """
    firsts = range(0, len(images), size)
    for first in track(firsts, description, total=len(firsts), announced=announced):
        yield images[first : first + size]


@dataclass(frozen=True)
class ImageSplit:
    """One split of one task, ready for a backbone.

    Attributes:
        images: uint8, N × 3 × S × S, memory-mapped; corrupted if the experiment asks for it.
        labels: ground truth, int64, N, for evaluation and fine-tuning alone.
        digests: uint8, N × 16, hash of each decoded image, before any corruption and resize.
        key: hash of content, corruption and geometry.
    """

    images: Images
    labels: Tensor
    digests: Tensor
    key: str

    def __len__(self) -> int:
        return len(self.images)

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
        whole = self.images
        images = whole.at(rows) if isinstance(whole, SomeImages) else SomeImages(whole, rows)
        return ImageSplit(images, self.labels[rows], self.digests[rows], key_of([self.key, how]))


def split_key(
    source: ImageSource, preprocess: Preprocess, corruption: CorruptionSettings | None = None
) -> str:
    """Hash of content, corruption and geometry: the name of a split's entry in the cache."""
    corrupted = [] if corruption is None else [corruption_key(corruption)]
    return key_of([source.fingerprint, preprocess.geometry_key, *corrupted])


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
    key = split_key(source, preprocess, corruption)

    def prepare(row: int, image: Image.Image) -> tuple[np.ndarray, bytes]:
        try:
            shown = image if corruption is None else corrupt(image, corruption)
            return preprocess.resize(shown), image_digest(image)
        except UserError as error:
            raise UserError(f"{name}, image {row}: {error}") from error

    def read(path: Path) -> ImageSplit:
        tensors = load_file(path)
        return ImageSplit(tensors["images"], tensors["labels"], tensors["digests"], key)

    return cache.load(
        "images",
        f"{key}.safetensors",
        lambda path: _write_images(path, source, preprocess.image_size, prepare, name),
        read,
    )


def _write_images(
    path: Path,
    source: ImageSource,
    side: int,
    prepare: Callable[[int, Image.Image], tuple[np.ndarray, bytes]],
    name: str,
) -> None:
    """Write every image to the file as soon as it is decoded and resized."""
    count = len(source)
    if not count:
        raise UserError(f"{name} holds no image")
    digests = bytearray()
    with path.open("wb") as stream:
        file = TensorFile(
            stream,
            {
                "images": ("uint8", (count, 3, side, side)),
                "labels": ("int64", (count,)),
                "digests": ("uint8", (count, DIGEST_BYTES)),
            },
        )
        prepared = of_each_picture(source.undecoded(), prepare, f"decoding {name}", total=count)
        for row, (pixels, digest) in enumerate(prepared):
            file.write("images", row, pixels[None])
            digests += digest
        file.write("labels", 0, source.labels())
        file.write("digests", 0, as_rows(bytes(digests)))
    if len(digests) != count * DIGEST_BYTES:
        raise UserError(f"{name} has {count} labels and {len(digests) // DIGEST_BYTES} images")


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
            self._loaded[address] = load_split(
                task.sources[split],
                self.preprocess,
                self.cache,
                name=f"{task.name} {split}",
                corruption=self._corruption_of(task, split),
            )
        return self._loaded[address]

    def key(self, task: Task, split: Split) -> str:
        """The key of one split of one task, whose images stay unread."""
        return split_key(task.sources[split], self.preprocess, self._corruption_of(task, split))

    def digests(self, task: Task, split: Split, *, kept: bool) -> np.ndarray:
        """Hashes of the decoded images of one split of one task, uint8, N × 16.

        Args:
            kept: the images are going to be used: what is decoded for the hashes is kept for that.
        """
        source = task.sources[split]
        if source.digests is not None:
            return source.digests

        def write(path: Path) -> None:
            if kept:
                path.write_bytes(self.split(task, split).digests.numpy().tobytes())
                return
            name = f"comparing {task.name} {split}"
            path.write_bytes(picture_digests(source.undecoded(), name, total=len(source)))

        key = key_of([source.fingerprint])
        return as_rows(self.cache.file("digests", f"{key}.bin", write).read_bytes())

    def _corruption_of(self, task: Task, split: Split) -> CorruptionSettings | None:
        return self.corruption if self.corruption.reaches(task.name, split) else None

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


def check_disjoint(tasks: Mapping[str, Mapping[Split, np.ndarray]]) -> None:
    """Check by image hash that no two splits of a task share an image.

    Args:
        tasks: task name → the digests of its splits, uint8, N × 16.

    Raises:
        UserError: gives the number of shared images for each task and pair of splits.
    """
    found = []
    for task, splits in tasks.items():
        distinct = {name: {row.tobytes() for row in digests} for name, digests in splits.items()}
        for first, second in combinations(distinct, 2):
            shared = len(distinct[first] & distinct[second])
            if shared:
                found.append(f"{task}: {shared} image(s) in both {first} and {second}")
    if found:
        raise UserError(f"splits must not share images; {'; '.join(found)}")
