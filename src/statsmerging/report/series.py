"""Average accuracies along one key of the config: severity, number of tasks, number of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from statsmerging.report.frames import method_rows, over_repetitions
from statsmerging.report.groups import RunGroup, concerns, follows, setting_text

#: Columns of every table of this module.
COLUMNS = ["problem", "line", "panel", "x", "mean", "std", "over"]

#: Kind of figure → label of its horizontal axis, ``x``.
LABELS = {
    "severity": "severity (0: clean)",
    "tasks": "number of merged tasks",
    "images": "learning images per task",
}

#: Text of ``x`` where the number of images is not limited.
ALL = "all"


def by_severity(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Average accuracy against severity: a panel for each kind of corruption; 0 is clean.

    Columns as in ``COLUMNS``: ``problem`` (suite and backbone), ``line`` (the method, and settings
    that distinguish it from other lines), ``panel``, ``x``, ``mean`` and ``std`` in percent,
    ``over`` (the zoos or seeds that the deviation is over).
    """
    rows = list(_rows(groups, "corruption."))
    clean = [row for row in rows if _kind(row) == "none"]
    spoilt = [row for row in rows if _kind(row) != "none"]
    keys = _telling_corruptions(spoilt)
    panels: dict[str, None] = dict.fromkeys(_corruption(row, keys) for row in spoilt)
    placed = [{**row, "panel": panel, "x": 0} for panel in panels for row in clean]
    for row in spoilt:
        severity = int(row["settings"]["corruption.severity"])
        placed.append({**row, "panel": _corruption(row, keys), "x": severity})
    return _series(placed)


def by_tasks(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Average accuracy against the number of merged tasks, in one panel; columns as above."""
    rows = _rows(groups, "suite.first")
    return _series([{**row, "panel": "", "x": row["tasks"]} for row in rows])


def by_images(groups: Sequence[RunGroup]) -> pd.DataFrame:
    """Average accuracy against the number of learning images per task; columns as above.

    ``x`` is a text, in the order of numbers, ``all`` at the end.
    """
    rows = [row for row in _rows(groups, "learning.images") if "learning.images" in row["settings"]]
    numbers = {row["settings"]["learning.images"] for row in rows}
    order = sorted(number for number in numbers if number is not None)
    texts = {number: str(number) for number in order} | {None: ALL}
    placed = [{**row, "panel": "", "x": texts[row["settings"]["learning.images"]]} for row in rows]
    frame = _series(placed)
    ranks = {text: rank for rank, text in enumerate(texts.values())}
    return frame.sort_values("x", key=lambda texts: texts.map(ranks), kind="stable")


def _rows(groups: Sequence[RunGroup], varied: str) -> Iterator[dict[str, Any]]:
    """One for each run and merged method, with the settings that hold along a line."""
    for group in groups:
        for repetition, method, title, row in method_rows(group):
            yield {
                "problem": group.problem,
                "settings": group.settings,
                "fixed": _fixed(group.settings, method, varied),
                "title": title,
                "tasks": len(row.accuracy),
                **repetition._asdict(),
                "average": 100 * row.average,
            }


def _fixed(settings: Mapping[str, Any], method: str, varied: str) -> dict[str, str]:
    """All settings that concern this method, except the varied ones."""
    return {
        key: setting_text(value)
        for key, value in settings.items()
        if key != "method" and not key.startswith(varied) and concerns(key, method)
    }


def _series(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Means over zoos and seeds; a line of a single point is left out."""
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    keys = ["problem", "line", "panel", "x"]
    frame = _without_twins(pd.DataFrame(_with_lines(rows)))
    series = over_repetitions(frame, keys, "average")
    points = series.groupby(["problem", "line", "panel"])["x"].transform("nunique")
    return series[points > 1].sort_values("x", kind="stable")[COLUMNS]


def _without_twins(frame: pd.DataFrame) -> pd.DataFrame:
    """One line for a method whose numbers are the same in all settings."""
    keys = ["problem", "title", "panel", "x", "zoo", "seed"]
    differs = frame.groupby(keys)["average"].transform("nunique") > 1
    touched = differs.groupby([frame["problem"], frame["title"]]).transform("any")
    once = frame[~touched].drop_duplicates(keys)
    return pd.concat([frame[touched], once.assign(line=once["title"])]).sort_index()


def _with_lines(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Name the line of each row: its method, and the settings in which its rows differ."""
    peers: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        peers.setdefault((row["problem"], row["title"]), []).append(row["fixed"])
    telling = {key: _telling(fixed) for key, fixed in peers.items()}
    for row in rows:
        keys = telling[row["problem"], row["title"]]
        own = [f"{_short(key)}={row['fixed'][key]}" for key in keys if key in row["fixed"]]
        yield {**row, "line": ", ".join([row["title"], *own])}


def _telling(settings: Sequence[dict[str, str]]) -> list[str]:
    """Keys in which settings differ."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return [
        key
        for key in keys
        if len({setting.get(key) for setting in settings}) > 1 and not follows(key, settings)
    ]


def _short(key: str) -> str:
    return key.removesuffix(".kind").rpartition(".")[2]


def _kind(row: Mapping[str, Any]) -> str:
    return str(row["settings"].get("corruption.kind", "none"))


def _telling_corruptions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of the kind, and of all else but the severity in which corruptions differ."""
    keys = [f"corruption.{name}" for name in ("constants", "protocol", "tasks", "seed")]
    differ = [key for key in keys if len({_value(row, key) for row in rows}) > 1]
    return ["corruption.kind", *differ]


def _corruption(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(_value(row, key) for key in keys)


def _value(row: Mapping[str, Any], key: str) -> str:
    return setting_text(row["settings"].get(key))
