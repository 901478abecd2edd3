"""The first thing on a page, as plain values for its template: who is ahead, and on which task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from statsmerging.report.pairs import FEW_ZOOS, NARROW
from statsmerging.report.ranking import Contest, Interval, Place
from statsmerging.report.significance import DRAWS, LEVEL
from statsmerging.report.words import counted
from statsmerging.runs.results import BOUNDS

#: Rows of a ranking or a heat table that are seen at once; further ones are folded.
MOST = 12

#: Normalised accuracies between which the colour of a cell changes.
PALE, FULL = 0.4, 1.0

Values = dict[str, Any]


def answers(contests: Sequence[Contest]) -> Values:
    """What the page says of all contests: a sentence for each, rankings, and heat tables.

    With several contests, one table of averages, method × problem, stands before them.
    """
    return {
        "contests": [contest_values(contest, several=len(contests) > 1) for contest in contests],
        "across": _across(contests) if len(contests) > 1 else None,
    }


def headline(contest: Contest) -> str:
    """The answer in a sentence."""
    first, others = contest.first, len([place for place in contest.places if place.rank]) - 1
    lead = f"{full_title(first)} has {percent(first.average)} %"
    if first.interval is not None:
        lead += f" {interval_text(first.interval)}"
    lead += f" on average over {_tasks(contest)}"
    if not others:
        return f"{lead}."
    if not contest.zoos:
        return f"{lead}, the highest of {others + 1}; the differences could not be tested."
    level = [full_title(place) for place in contest.level if place.rank > 1]
    if not level:
        rivals = {1: "the other one is", 2: "both others are"}.get(
            others, f"all {others} others are"
        )
        return f"{lead}; {rivals} significantly below."
    named = "; ".join(level) if len(level) < 4 else f"{len(level)} of {others} others"
    verb = "is" if len(level) == 1 else "are"
    return f"{lead}; {named} {verb} not significantly below."


def full_title(place: Place) -> str:
    """Title and setting of a method."""
    return f"{place.title} ({place.setting})" if place.setting else place.title


def percent(fraction: float | None) -> str:
    """``71.3``; nothing for ``None``."""
    return "" if fraction is None else f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """A difference in points, ``−1.3``; 0.0 has no sign."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text.strip("+−") == "0.0" else text


def interval_text(interval: Interval) -> str:
    """``[70.1, 72.5]``, in percent."""
    return f"[{percent(interval[0])}, {percent(interval[1])}]"


def heat_table(label: str, caption: str, columns: Sequence[str], rows: Sequence[Values]) -> Values:
    """A table whose cells are shaded; the best of each column, bounds apart, is marked.

    Args:
        rows: each with ``title``, ``setting``, ``kind`` and ``cells``, pairs of a fraction and its
            share of what is full colour; ``None`` for either that is not known.
    """
    best = [
        max(
            (
                round(row["cells"][place][0], 3)
                for row in rows
                if row["kind"] != "bound" and row["cells"][place][0] is not None
            ),
            default=None,
        )
        for place in range(len(columns))
    ]
    shown = [{**row, "cells": list(map(_cell, row["cells"], best))} for row in rows]
    for row in shown:
        if row["kind"] == "bound":
            row["cells"] = [{**cell, "best": False} for cell in row["cells"]]
    merged = [row for row in shown if row["kind"] != "bound"]
    bounds = [row for row in shown if row["kind"] == "bound"]
    return {
        "label": label,
        "caption": caption,
        "columns": columns,
        "rows": [*merged[:MOST], *bounds],
        "further": merged[MOST:],
    }


def task_table(contest: Contest) -> Values:
    """Method × task: accuracies, shaded by their share of the individual model's."""
    individual = next((b.accuracy for b in contest.bounds if b.method == "individual"), None)

    def share(task: str, accuracy: float) -> float | None:
        if individual is None:
            return accuracy
        return accuracy / individual[task] if individual.get(task) else None

    rows = [
        {
            **_names(place),
            "cells": [
                *((value, share(task, value)) for task, value in place.accuracy.items()),
                (place.average, place.normalised),
            ],
        }
        for place in (*contest.places, *contest.bounds)
    ]
    of = "its share of the individual model's" if individual else "accuracy"
    caption = f"Top-1 accuracy on test images, %; the darker, the higher {of}; bold: the best"
    columns = [*(task.replace("_", " ") for task in contest.tasks), "average"]
    return heat_table(f"Tasks: {_label(contest)}", caption, columns, rows)


class _Scale:
    """Places of accuracies on the line of a ranking, in percent of its width."""

    def __init__(self, contest: Contest) -> None:
        known = [end for place in contest.places for end in place.interval or (place.average,)]
        # Pre-trained models are often far below, and would leave no room for the others.
        known += [each.average for each in contest.bounds if each.average > min(known)]
        self._low, high = min(known), max(known)
        self._width = max(high - self._low, 1e-6)

    def dot(self, accuracy: float) -> float | None:
        """Where it stands; ``None`` beyond the line."""
        place = round(100 * (accuracy - self._low) / self._width, 2)
        return place if 0 <= place <= 100 else None

    def bar(self, interval: Interval) -> tuple[float, float]:
        """Left end and width."""
        left = 100 * (interval[0] - self._low) / self._width
        return round(left, 2), round(100 * (interval[1] - interval[0]) / self._width, 2)


def contest_values(contest: Contest, *, several: bool) -> Values:
    """The ranking of a contest.

    Args:
        several: whether it is one of several, and so needs a heading.
    """
    caption = f"Average top-1 accuracy over {_tasks(contest)}"
    if contest.zoos:
        resampled = "test images and zoos" if contest.zoos > 1 else "test images"
        caption += (
            f" with its {LEVEL:.0%} interval, and the difference to the first with that of a "
            f"paired comparison (bootstrap over {resampled}, {DRAWS:,} draws); level: not "
            "significantly below the first"
        )
        caption += f"; {NARROW}" if 1 < contest.zoos < FEW_ZOOS else ""
    rows = [_row(place, contest) for place in contest.places]
    return {
        "label": _label(contest),
        "heading": _label(contest) if several else "",
        "headline": headline(contest),
        "caption": caption,
        "rows": [*rows[:MOST], *(_row(place, contest) for place in contest.bounds)],
        "further": rows[MOST:],
        "tasks": task_table(contest),
    }


def _across(contests: Sequence[Contest]) -> Values:
    """Method × problem: averages, shaded by their share of the individual models'."""
    found: dict[tuple[str, str], dict[int, Place]] = {}
    for column, contest in enumerate(contests):
        for place in (*contest.places, *contest.bounds):
            found.setdefault((place.title, place.setting), {})[column] = place

    def order(places: Mapping[int, Place]) -> tuple[bool, int, float]:
        mean = fmean(place.average for place in places.values())
        return next(iter(places.values())).method in BOUNDS, -len(places), -mean

    rows = []
    for places in sorted(found.values(), key=order):
        own = [places.get(column) for column in range(len(contests))]
        cells = [(None, None) if one is None else (one.average, one.normalised) for one in own]
        rows.append({**_names(next(iter(places.values()))), "cells": cells})
    caption = (
        "Average top-1 accuracy over the tasks of each problem, %; the darker, the higher its "
        "share of the individual models'; bold: the best"
    )
    columns = [" · ".join(filter(None, [each.own, each.kind])) or each.problem for each in contests]
    return heat_table("Averages on every problem", caption, columns, rows)


def _cell(known: tuple[float | None, float | None], best: float | None) -> Values:
    value, share = known
    return {
        "text": percent(value),
        "shade": _shade(share),
        "best": value is not None and round(value, 3) == best,
    }


def _label(contest: Contest) -> str:
    return " · ".join(filter(None, [contest.problem, contest.own, contest.kind]))


def _tasks(contest: Contest) -> str:
    return counted(len(contest.tasks), "task")


def _names(place: Place) -> Values:
    kind = "bound" if place.method in BOUNDS else "level" if place.level else ""
    return {"title": place.title, "setting": place.setting, "kind": kind}


def _row(place: Place, contest: Contest) -> Values:
    scale = _Scale(contest)
    told = contest.zoos > 0 and len(contest.places) > 1 and place.level
    return {
        **_names(place),
        "rank": place.rank or "",
        "level": ("first" if place.rank == 1 else "level") if told else "",
        "average": percent(place.average),
        "interval": "" if place.interval is None else interval_text(place.interval),
        "bar": None if place.interval is None else scale.bar(place.interval),
        "dot": scale.dot(place.average),
        "behind": points(place.behind) if place.rank > 1 else "",
        "gap": "" if place.gap is None else f"[{points(place.gap[0])}, {points(place.gap[1])}]",
        "normalised": percent(place.normalised),
        "repeated": place.repeated,
    }


def _shade(share: float | None) -> float | None:
    """Percent of the full colour."""
    if share is None:
        return None
    return round(100 * min(max((share - PALE) / (FULL - PALE), 0.0), 1.0), 1)
