"""Worker processes of a sweep end with the command that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

#: Of Linux' prctl.h.
_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the system kill this process with its parent, however that ends.

    A gentler signal would end the job, and leave the worker waiting for the next one.

    Args:
        parent: process id of whoever started this process; it may be gone by now.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
