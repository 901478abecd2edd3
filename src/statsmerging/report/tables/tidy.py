"""Tables as one tidy file for other programs: one line a number."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from statsmerging.errors import printable
from statsmerging.report.tables.content import UNIT, Table


def tidy(tables: Iterable[Table]) -> pd.DataFrame:
    """All numbers of all tables.

    Columns: those of the settings, ``method``, ``source`` (ours or published), ``column``,
    ``mean``, ``std``, ``n`` (seeds; none for published numbers), ``unit``.
    """
    rows = [
        {
            **row.facts,
            "column": heading,
            "mean": number.mean,
            "std": number.std,
            "n": number.seeds or None,
            "unit": UNIT,
        }
        for table in tables
        for row in table.rows
        for heading, number in zip(table.columns, row.numbers, strict=True)
        if number is not None
    ]
    frame = pd.DataFrame(rows).astype({"n": "Int64"})
    last = ["method", "source", "column", "mean", "std", "n", "unit"]
    return frame[[*(name for name in frame.columns if name not in last), *last]]


def spreadsheet_safe(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with a quote before texts that a spreadsheet would take for formulas."""
    texts = frame.map(lambda cell: _plain(cell) if isinstance(cell, str) else cell)
    return texts.rename(columns=_plain)


def _plain(text: str) -> str:
    shown = printable(text)
    try:
        float(shown)
    except ValueError:
        return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown
    return shown
