"""The number that the shell and whoever watches a run are told."""

from __future__ import annotations

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from statsmerging.app.mistakes import exit_status
from statsmerging.errors import IncompleteError, UserError
from statsmerging.merging.errors import MergingError


def _after_ctrl_c() -> SystemExit:
    stop = SystemExit(1)
    stop.__context__ = KeyboardInterrupt()
    return stop


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (UserError("a wrong key"), 2),
        (MergingError("weights that do not fit"), 2),
        (IncompleteError("a job failed"), 1),
        (ZeroDivisionError(), 1),
        (KeyboardInterrupt(), 130),
        (_after_ctrl_c(), 130),
        (SIGTERMException(), 143),
        (SystemExit(7), 7),
        (SystemExit("in words"), 1),
        (SystemExit(None), 0),
    ],
)
def test_every_end_has_its_status(error: BaseException | None, status: int) -> None:
    assert exit_status(error) == status
