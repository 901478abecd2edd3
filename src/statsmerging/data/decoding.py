"""Pictures of a split, decoded by several threads and given in their order, few at a time."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from statsmerging.data.pictures import DIGEST_BYTES, image_digest
from statsmerging.data.suites import Undecoded
from statsmerging.progress import track

Result = TypeVar("Result")

#: Encoded or finished pictures that wait, for each thread: as many as keep it busy.
_WAITING = 4


def of_each_picture(
    pictures: Iterable[Undecoded],
    function: Callable[[int, Image.Image], Result],
    description: str,
    *,
    total: int,
) -> Iterator[Result]:
    """``function(row, picture)`` of each decoded picture, in order; a decoded one does not stay.

    Threads are enough: Pillow's decoders and filters and the hashes, about 90 % of the time of a
    photograph, run side by side, and a thread needs no imports and no copies of pictures.

    Args:
        pictures: read by the caller's thread, a few ahead of what is asked for.
        description: shown beside the progress bar.
        total: number of pictures.
    """

    def work(row: int, decode: Undecoded) -> Result:
        return function(row, decode())

    threads = torch.get_num_threads()  # the config's `threads`
    waiting: deque[Future[Result]] = deque()

    def results() -> Iterator[Result]:
        for row, picture in enumerate(pictures):
            waiting.append(pool.submit(work, row, picture))
            if len(waiting) > _WAITING * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    # The filters of warnings are the process's: what one thread restores, another one has changed.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")
        try:
            yield from track(results(), description, total=total)
        finally:
            for future in waiting:
                future.cancel()


def picture_digests(pictures: Iterable[Undecoded], description: str, *, total: int) -> bytes:
    """The digests of all pictures, one behind the other; nothing is resized or kept."""
    digests = of_each_picture(
        pictures, lambda _, picture: image_digest(picture), description, total=total
    )
    return b"".join(digests)


def as_rows(digests: bytes) -> np.ndarray:
    """Digests one behind the other → uint8, N × 16."""
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, DIGEST_BYTES)
