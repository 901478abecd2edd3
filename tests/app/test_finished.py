"""What is said of a run that is complete already."""

from __future__ import annotations

from pathlib import Path

import pytest

from statsmerging.app.command_line import show_finished
from statsmerging.errors import UserError
from statsmerging.runs.directory import RunDirectory
from tests.report.test_table import results


def finished(path: Path) -> RunDirectory:
    directory = RunDirectory(path, {})
    directory.finish(results(0, 0.5), {"run_hash": directory.run_hash, "config": {}})
    return directory


def test_a_damaged_record_is_said_in_one_line(tmp_path: Path) -> None:
    directory = finished(tmp_path)
    directory.results.write_text(directory.results.read_text()[:-20])
    with pytest.raises(UserError, match=r"results\.json is not .*; rerun=true makes it anew$"):
        show_finished(directory)


def test_other_loggers_get_nothing_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = finished(tmp_path)
    with caplog.at_level("INFO"):
        show_finished(directory, ["csv"])
        assert "nothing new is sent" not in caplog.text
        show_finished(directory, ["csv", "wandb", "tensorboard"])
    assert "nothing new is sent to wandb, tensorboard: rerun=true runs and logs" in caplog.text
