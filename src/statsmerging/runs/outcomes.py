"""``outcomes.safetensors``: for every row of a run, one bit per test image: right or wrong.

Tests of significance pair methods image by image; accuracies alone do not allow that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from statsmerging.errors import first_line, printable, shown
from statsmerging.runs.results import MethodResult, RunResults
from statsmerging.store.files import atomic_path
from statsmerging.store.received import LARGEST_TEXT, ReceivedError

#: Two accuracies closer than this are one count of images.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Outcomes:
    """Which test images the models of a run have right.

    Attributes:
        packed: method and task → eight images a byte, the first one in the highest bit.
        images: task → number of its test images n.
    """

    packed: Mapping[tuple[str, str], NDArray[np.uint8]]
    images: Mapping[str, int]

    @property
    def methods(self) -> list[str]:
        """Rows with outcomes, each once."""
        return list(dict.fromkeys(method for method, _ in self.packed))

    def tasks_of(self, method: str) -> set[str]:
        """Tasks on which the outcomes of a method are known."""
        return {task for name, task in self.packed if name == method}

    def of(self, method: str, task: str) -> NDArray[np.bool_]:
        """n truth values, in the order of the task's test images."""
        return _unpacked(self.packed[method, task], self.images[task])


def write_outcomes(path: Path, methods: Mapping[str, MethodResult]) -> None:
    """Write ``METHOD/TASK`` → ⌈n / 8⌉ bytes for all rows whose outcomes are known; else no file."""
    packed = {
        f"{method}/{task}": np.packbits(scored.right)
        for method, result in methods.items()
        for task, scored in result.accuracies.items()
        if scored.right is not None
    }
    if packed:
        with atomic_path(path) as partial:
            save_file(packed, partial)


def read_outcomes(path: Path, results: RunResults) -> Outcomes:
    """Read a received file; entries that are no row of the results are left out.

    Raises:
        ReceivedError: the file is damaged, or holds other images than the results count.
    """
    where = printable(str(path))
    if path.stat().st_size > LARGEST_TEXT:
        raise ReceivedError(f"{where} is too large to be outcomes")
    try:
        entries = load_file(path)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise ReceivedError(f"{where} cannot be read: {printable(first_line(error))}") from error
    packed: dict[tuple[str, str], NDArray[np.uint8]] = {}
    images: dict[str, int] = {}
    for method, row in results.methods.items():
        counts = {**row.n, **row.unseen.n}
        for task, accuracy in {**row.accuracy, **row.unseen.accuracy}.items():
            name, count = f"{method}/{task}", counts.get(task, 0)
            if name in entries:
                if not _fits(entries[name], count, accuracy) or images.get(task, count) != count:
                    raise ReceivedError(f"{where} does not fit results.json: {shown(name)}")
                packed[method, task], images[task] = entries[name], count
    return Outcomes(packed, images)


def _fits(bits: NDArray[np.uint8], images: int, accuracy: float) -> bool:
    """Whether the bits are of so many images, and as many are right as the accuracy says."""
    if bits.dtype != np.uint8 or images < 1 or bits.shape != (-(-images // 8),):
        return False
    return abs(float(_unpacked(bits, images).mean()) - accuracy) < _EQUAL


def _unpacked(bits: NDArray[np.uint8], images: int) -> NDArray[np.bool_]:
    return np.unpackbits(bits, count=images).view(np.bool_)
