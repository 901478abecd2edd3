"""Progress bars with the time left, on standard error; one log line where there is no terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import track as rich_track

from statsmerging.records.errors import printable

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


def track(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """Iterate with a progress bar that vanishes when it is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        log.info("%s", description)
        yield from items
        return
    shown = escape(printable(description))
    yield from rich_track(items, shown, total=total, console=console, transient=True)
