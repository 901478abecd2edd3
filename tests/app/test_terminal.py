"""What reaches a terminal: foreign names move no cursor, and no encoding stops a job."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from pathlib import Path

import pytest

from statsmerging.app.terminal import PrintableFormatter, complain, settle_terminal, show_table
from statsmerging.runs.results import RunResults
from tests.report.test_table import results

#: Clears the screen, and a line that looks like one of ours.
HOSTILE = "\x1b[2J\nerror: none\u202e"
SHOWN = r"\x1b[2J\nerror: none\u202e"


@pytest.fixture(autouse=True)
def _undo(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets for its process is no other test's."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def logged(name: str, error: Exception | None = None) -> str:
    info = None if error is None else (type(error), error, None)
    record = logging.LogRecord(name, logging.INFO, "", 0, "of %s", (HOSTILE,), info)
    return PrintableFormatter("%(message)s").format(record)


def test_a_message_is_printable_and_one_of_ours_is_one_line() -> None:
    assert logged("statsmerging.jobs.merge") == f"of {SHOWN}"
    assert logged("lightning") == "of \\x1b[2J\nerror: none\\u202e"
    assert "\x1b" not in logged("statsmerging", ValueError(HOSTILE))


def test_warnings_errors_and_tracebacks_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    settle_terminal()
    complain(f"error: {HOSTILE}")
    assert capsys.readouterr().err == f"error: {SHOWN}\n"
    error = ValueError(HOSTILE)
    sys.excepthook(ValueError, error, None)
    shown = warnings.formatwarning(HOSTILE, UserWarning, "file.py", 1)
    assert r"\x1b[2J" in shown
    assert "\x1b" not in capsys.readouterr().err + shown


def test_a_terminal_without_unicode_gets_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    settle_terminal()
    table = results(0, 0.613)
    table["suite"] = "Straße"
    show_table(RunResults.model_validate(table), Path("run"))
    sys.stdout.flush()
    shown = written.getvalue()
    assert b"61.3" in shown
    assert rb"Stra\xdfe" in shown


def test_names_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = results(0, 0.613)
    table["methods"]["stats_merging"]["title"] = "[red]:warning:\x1b[2J"
    show_table(RunResults.model_validate(table), Path("run"))
    shown = capsys.readouterr().out
    assert r"[red]:warning:\x1b[2J" in shown
    assert "\x1b" not in shown
