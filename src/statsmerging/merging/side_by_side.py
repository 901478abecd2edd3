"""Work on many layers, several of them at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

#: Layers at the same time, at most: the task vectors of each are in memory.
SIDE_BY_SIDE = 4

Result = TypeVar("Result")


def side_by_side(
    function: Callable[[str], Result], layers: Sequence[str], device: torch.device
) -> dict[str, Result]:
    """What a function of a layer's name gives; on a CPU, several at a time with their own threads.

    Threads that share the eigenproblem of one small matrix mostly wait for each other.
    """
    threads = torch.get_num_threads()
    workers = min(threads, SIDE_BY_SIDE) if device.type == "cpu" else 1
    if workers == 1:
        return {name: function(name) for name in layers}
    try:
        # The number of threads is a setting of each thread; new ones take the last that was made.
        with ThreadPoolExecutor(
            workers, "layer", torch.set_num_threads, (threads // workers,)
        ) as pool:
            return dict(zip(layers, pool.map(function, layers), strict=True))
    finally:
        torch.set_num_threads(threads)
