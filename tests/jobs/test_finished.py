"""What is said of a run that is complete already."""

from __future__ import annotations

from pathlib import Path

import pytest

from statsmerging.jobs.finished import show_finished
from statsmerging.records.files import write_json
from statsmerging.records.run_directory import RunDirectory
from tests.report.test_table import results


def test_other_loggers_get_nothing_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = RunDirectory(tmp_path, {})
    write_json(directory.results, results(0, 0.5))
    write_json(directory.manifest, {"code": {}, "inputs": {}})
    with caplog.at_level("INFO"):
        show_finished(directory, ["csv"])
        assert "nothing new is sent" not in caplog.text
        show_finished(directory, ["csv", "wandb", "tensorboard"])
    assert "nothing new is sent to wandb, tensorboard: rerun=true runs and logs" in caplog.text
