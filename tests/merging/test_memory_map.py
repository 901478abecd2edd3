"""Numbers in a mapped file: they stay when their memory is given back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from statsmerging.merging.bank import MappedFile


def resident_mib() -> float:
    """Memory of this process that belongs to files."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssFile")) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_released_parts_leave_memory_and_keep_their_numbers(tmp_path: Path) -> None:
    numbers = MappedFile(tmp_path / "numbers.bin", 16 << 20, torch.float32).tensor
    file = MappedFile(tmp_path / "numbers.bin", 16 << 20, torch.float32)
    assert not numbers.isnan().any()  # the first file lives on without its name
    file.tensor.fill_(1.5)
    before = resident_mib()
    file.release(file.tensor[3 : 12 << 20])
    assert before - resident_mib() == pytest.approx(48, abs=4)
    assert torch.equal(file.tensor, torch.full((16 << 20,), 1.5))


def test_tensors_elsewhere_are_left_alone(tmp_path: Path) -> None:
    file = MappedFile(tmp_path / "numbers.bin", 10, torch.bfloat16)
    other = torch.ones(5)
    file.release(other)
    assert torch.equal(other, torch.ones(5))
