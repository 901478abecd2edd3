"""Task vectors in a file: read as if they were in memory, resident only while they are used."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor


class MappedFile:
    """A file mapped into memory, writable, overwritten if it exists.

    Attributes:
        tensor: the whole of it, ``numel`` numbers of ``dtype``.
    """

    def __init__(self, path: Path, numel: int, dtype: torch.dtype) -> None:
        path.unlink(missing_ok=True)
        with path.open("wb+") as file:
            file.truncate(numel * dtype.itemsize)
            self._mapping = mmap.mmap(file.fileno(), 0)
        self.tensor = torch.frombuffer(self._mapping, dtype=dtype)

    def release(self, part: Tensor) -> None:
        """Give back the memory of a part of ``tensor``; the file keeps its numbers.

        Nothing happens to tensors that lie elsewhere, nor where the system cannot do it.
        """
        offset = part.data_ptr() - self.tensor.data_ptr()
        if 0 <= offset < self.tensor.nbytes and hasattr(mmap, "MADV_DONTNEED"):
            page = offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapping.madvise(mmap.MADV_DONTNEED, page, offset + part.nbytes - page)
