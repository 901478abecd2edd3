"""Text for a terminal or a log: printable whatever its source, in any encoding."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from statsmerging.app.mistakes import UNREAD
from statsmerging.errors import printable
from statsmerging.runs.manifest import this_command
from statsmerging.runs.results import RunResults
from statsmerging.store.secrets import RedactingFormatter

#: Messages of loggers below this one are single lines.
_OURS = "statsmerging"


class PrintableFormatter(RedactingFormatter):
    """Escapes control characters in messages, and replaces credentials.

    ``conf/hydra/job_logging`` names it for every handler.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, a name of logging's
        """The message; only libraries may write several lines."""
        ours = record.name.partition(".")[0] == _OURS
        record.message = printable(record.message) if ours else _lines(record.message)
        return super().formatMessage(record)

    def formatException(  # noqa: N802, a name of logging's
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, ...],
    ) -> str:
        """The traceback with the error's message."""
        return _lines(super().formatException(ei))  # type: ignore[arg-type]


def settle_terminal() -> None:
    """Escape control characters, and letters that the encoding lacks, in this process's output."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _warning
    sys.excepthook = _print_traceback


def complain(line: str) -> None:
    """Print one line to standard error."""
    print(printable(line), file=sys.stderr)


def leave_unread() -> NoReturn:
    """End the command because the reader of its output has left, as in ``run.py --help | head``."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
    sys.exit(UNREAD)


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning as Python formats it, without the line of code."""
    return f"{filename}:{lineno}: {category.__name__}: {_lines(str(message))}\n"


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    text = "".join(traceback.format_exception(kind, error, trace))
    print(_lines(text.rstrip("\n")), file=sys.stderr)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def show_table(results: RunResults, directory: Path) -> None:
    """Print the accuracy table of a run to standard output."""
    # These import pandas, which --help does not need.
    from statsmerging.report.tables.accuracy import accuracy_content
    from statsmerging.report.tables.terminal import print_table

    report = f"{this_command()} job=report job.runs={directory}"
    print_table(accuracy_content([results]), f"this command again with | less -S, or {report}")
