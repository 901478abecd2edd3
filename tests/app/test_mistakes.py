"""Storage and memory that run out end in one line."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import torch

from statsmerging.app.mistakes import storage_problem
from tests.app.test_command_line import command
from tests.zoo.formats.genuine import FIXTURES

ENCODER = FIXTURES / "task_vectors_encoder.pt"


def test_too_little_memory_however_it_is_said() -> None:
    with pytest.raises(RuntimeError) as torch_says:
        torch.empty(1 << 60, dtype=torch.uint8)
    errors = [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory"), torch_says.value]
    for error in errors:
        assert (storage_problem(error) or "").startswith("there is not enough memory")
    assert storage_problem(RuntimeError("shapes do not match")) is None


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """`ulimit -f`: the process is not killed by the signal, and prints no traceback."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    target = tmp_path / "tower.safetensors"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        done = command(
            "job=convert",
            f"job.source={ENCODER}",
            f"job.target={target}",
            f"hydra.run.dir={tmp_path / 'run'}",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.returncode == 2
    assert "File too large: the run directory or the cache" in done.stderr
    assert "Traceback" not in done.stderr
    assert not target.exists()
