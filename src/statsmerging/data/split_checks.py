"""No image may stand in two splits of a task: checked by content before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.suites import Split
from statsmerging.records.errors import UserError


def check_disjoint(tasks: Mapping[str, Mapping[Split, ImageSplit]]) -> None:
    """Raise ``UserError`` with the number of shared images, for every task and pair of splits.

    Args:
        tasks: task name → its splits.
    """
    found = []
    for task, splits in tasks.items():
        digests = {name: _digests(split) for name, split in splits.items()}
        for first, second in combinations(digests, 2):
            shared = len(digests[first] & digests[second])
            if shared:
                found.append(f"{task}: {shared} image(s) in both {first} and {second}")
    if found:
        raise UserError(f"splits must not share images; {'; '.join(found)}")


def _digests(split: ImageSplit) -> set[bytes]:
    return {row.tobytes() for row in split.digests.numpy()}
