"""What a user sees of a job under way, and the console for its tables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track as rich_track

from statsmerging.errors import printable

log = logging.getLogger(__name__)

Item = TypeVar("Item")


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that one long step is under way whose length is not known in advance."""
    console = Console(stderr=True)
    if not console.is_terminal:
        log.info("%s", description)
        yield
        return
    with console.status(escape(printable(description))):
        yield


def track(
    items: Iterable[Item], description: str, *, total: int | None = None, announced: bool = True
) -> Iterator[Item]:
    """Iterate with a progress bar that vanishes when it is done.

    Args:
        announced: whether a line says so where there is no terminal.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        if announced:
            log.info("%s", description)
        yield from items
        return
    shown = escape(printable(description))
    yield from rich_track(items, shown, total=total, console=console, transient=True)


def agreed(question: str) -> bool:
    """Whether the user answers a question with yes."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


#: Columns of a table that goes to a file or a pipe, where nothing wraps it: any table fits.
FILE_WIDTH = 2000


def wide_console() -> Console:
    """Standard output, as wide as the terminal, or wide enough for any table without one.

    The environment variable ``COLUMNS`` sets another width.
    """
    console = Console(emoji=False)  # no name of a task is one
    if console.is_terminal or "COLUMNS" in os.environ:
        return console
    return Console(emoji=False, width=FILE_WIDTH)
