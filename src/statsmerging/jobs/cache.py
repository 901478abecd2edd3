"""``job=cache``: what the cache holds, and the deletion of what nobody has used for long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from statsmerging.errors import UserError, printable
from statsmerging.progress import agreed, wide_console
from statsmerging.store.cache_entries import CacheEntry, cache_content, delete_entry
from statsmerging.store.locks import HeldError

if TYPE_CHECKING:
    from statsmerging.app.run import Run

DAY = 86_400.0


def cache(run: Run) -> None:
    """Show the cache by kind; with ``job.delete``, delete its old entries.

    Raises:
        UserError: no cache, no age to delete by, or nobody to ask.
    """
    job, root = run.config.job, Path(run.config.cache)
    if job.delete and job.unused_days is None:
        raise UserError("job.delete: job.unused_days=DAYS says which entries")
    if job.delete is True and not sys.stdin.isatty():
        raise UserError(
            "job.delete=true asks first, and there is no terminal: job.delete=false lists the old "
            "entries, job.delete=confirmed deletes them unasked"
        )
    content, now = cache_content(root), time.time()
    days = float("inf") if job.unused_days is None else job.unused_days
    old = [entry for entry in content.entries if now - entry.last_used >= days * DAY]
    wide_console().print(_table(content.entries, content.foreign, old, now))
    if job.unused_days is None:
        return
    what = f"{len(old)} entries unused for {days:g} days, {_gigabytes(old)} GB"
    if not old or not job.delete:
        print(f"{what}; nothing was deleted")
    elif job.delete is True and not agreed(f"delete {what}?"):
        print("nothing was deleted")
    else:
        deleted = [entry for entry in old if _is_deleted(root, entry)]
        print(f"{len(deleted)} of {len(old)} entries deleted, {_gigabytes(deleted)} GB")


def _table(
    entries: Sequence[CacheEntry], foreign: Sequence[Path], old: Sequence[CacheEntry], now: float
) -> Table:
    """One row for each kind, the largest first, and one for what is not ours."""
    table = Table("kind", box=box.SIMPLE_HEAD)
    for heading in ("entries", "GB", "days since the last use", "of them old, GB"):
        table.add_column(heading, justify="right")
    kinds = {
        kind: [entry for entry in entries if entry.kind == kind]
        for kind in {entry.kind for entry in entries}
    }
    for kind, own in sorted(kinds.items(), key=lambda item: -_bytes(item[1])):
        ages = [(now - entry.last_used) / DAY for entry in own]
        table.add_row(
            escape(printable(kind)),
            str(len(own)),
            _gigabytes(own),
            f"{min(ages):.0f} to {max(ages):.0f}",
            _gigabytes(entry for entry in old if entry.kind == kind),
        )
    table.add_section()
    table.add_row("all", str(len(entries)), _gigabytes(entries), "", _gigabytes(old))
    if foreign:
        size = sum(path.lstat().st_size for path in foreign)
        table.add_row("other files, which stay", str(len(foreign)), f"{size / 1e9:.3f}")
    return table


def _bytes(entries: Iterable[CacheEntry]) -> int:
    return sum(entry.bytes for entry in entries)


def _gigabytes(entries: Iterable[CacheEntry]) -> str:
    return f"{_bytes(entries) / 1e9:.3f}"


def _is_deleted(root: Path, entry: CacheEntry) -> bool:
    """Delete an entry; a line says that it stays, and why."""
    try:
        delete_entry(root, entry)
    except HeldError:
        reason = "a job is making it"
    except (UserError, OSError) as error:
        reason = str(error)
    else:
        return True
    print(printable(f"left {entry.path}: {reason}"), file=sys.stderr)
    return False
