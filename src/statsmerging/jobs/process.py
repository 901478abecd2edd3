"""Threads and memory of a process that computes."""

from __future__ import annotations

import ctypes
import platform

import torch

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def settle_process(threads: int | None) -> None:
    """Set the number of CPU threads (None: torch's own), and keep freed memory for reuse."""
    if threads is not None:
        torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have malloc hold on to large freed blocks.

    It hands them back to the system otherwise, and a step that merges, and drops, all weights of a
    network then spends as long on page faults as on the merge itself.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the limit of older versions
