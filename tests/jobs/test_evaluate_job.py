"""``job=evaluate`` of a file that a finished run wrote; its numbers are in test_merge_job.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from statsmerging.errors import UserError
from statsmerging.store.files import write_json
from tests.conftest import JobRunner


def test_merged_weights_that_are_not_what_the_run_wrote(run_job: JobRunner, tmp_path: Path) -> None:
    received = tmp_path / "received"
    received.mkdir()
    (received / "merged.safetensors").write_bytes(b"damaged")
    write_json(received / "manifest.json", {"outputs": {"merged.safetensors": "0" * 64}})
    with pytest.raises(UserError, match=r"merged\.safetensors is not what the run wrote"):
        run_job("job=evaluate", f"job.checkpoint={received / 'merged.safetensors'}")
