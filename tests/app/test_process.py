"""What a job asks of the process it runs in."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED_MEMORY_STAYS = """
from pathlib import Path
import torch
from statsmerging.app.setup import settle_process

def resident_mib():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024

settle_process(threads=1)
assert torch.get_num_threads() == 1
block = torch.ones(16 << 20)
held = resident_mib()
del block
print(held - resident_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is glibc's to settle")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    command = [sys.executable, "-c", FREED_MEMORY_STAYS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 8  # of 64 MiB, which go back to the system otherwise
