"""The parts that charts share: legends, lines, panels, tables, and answers to the pointer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from statsmerging.report.figures.style import (
    COLUMN_CHARACTERS,
    PAGE_CHARACTERS,
    POINTER,
    colours,
    dashes,
    folded,
)

#: Legends of markers, and of lines, which are long enough to show their dashes.
LEGEND = alt.Legend(symbolSize=36)
LINES = alt.Legend(symbolSize=400)

#: A click on an entry of the legend shows that one alone.
PICKED: dict[str, Any] = {"name": "picked", "bind": "legend"}

#: Panels with one vertical scale, to compare them.
SHARED = alt.Resolve(scale=alt.ScaleResolveMap(y="shared"))

#: An axis on which nothing lies between whole numbers.
WHOLE = alt.Axis(format="d", tickMinStep=1)


def laid_out(
    chart: alt.TopLevelMixin, columns: int = 1, names: Sequence[str] = (), least: int = 0
) -> alt.TopLevelMixin:
    """The chart with what a medium needs to place it.

    Args:
        chart: of any kind.
        columns: panels in a row on paper.
        names: entries of the legend.
        least: width on a screen, in pixels; a narrower one scrolls.
    """
    longest = max(map(len, names), default=0)
    placed: alt.TopLevelMixin = chart.properties(
        usermeta={"columns": columns, "longest": longest, "least": least}
    )
    return placed


def lines_of(
    group: str, names: Sequence[str], tooltip: Sequence[Any] = (), legend: alt.Legend = LINES
) -> alt.Chart:
    """Marks that a column tells apart by colour, for ``panels``."""
    return alt.Chart().encode(
        color=alt.Color(f"{group}:N", scale=colours(names), title=None, legend=legend),
        opacity=alt.condition(
            alt.selection_point(fields=[group], **PICKED), alt.value(1), alt.value(0.1)
        ),
        tooltip=[f"{group}:N", *tooltip],
    )


def dash(group: str, names: Sequence[str], legend: alt.Legend) -> alt.StrokeDash:
    """Dashes of the lines of ``lines_of``; apart from it, since other marks have none."""
    return alt.StrokeDash(f"{group}:N", scale=dashes(names), title=None, legend=legend)


def under_the_pointer(tooltip: Sequence[Any]) -> alt.Chart:
    """Invisible points that show the numbers of a line: a line itself has only its first."""
    points = alt.Chart().mark_point(size=50, fillOpacity=0, strokeOpacity=0)
    shown: alt.Chart = points.encode(tooltip=tooltip).transform_filter(f"datum && {POINTER}")
    return shown


def panels(
    frame: pd.DataFrame,
    panel: str,
    group: str,
    layers: Sequence[alt.Chart],
    columns: int,
    zoom: Sequence[Any] = ("x", "y"),
    **of_all: Any,
) -> alt.TopLevelMixin:
    """A panel for each value of a column, with these layers in each.

    Args:
        frame: the data of all.
        panel: column that tells panels apart.
        group: column that tells lines apart.
        layers: of ``lines_of``.
        columns: panels in a row at most.
        zoom: channels whose scales move and zoom; those of numbers alone can.
        of_all: properties of the whole, such as ``resolve``.
    """
    values = list(frame[panel].unique())
    columns = min(columns, len(values))
    picked = alt.selection_point(fields=[group], **PICKED)
    made = []
    for number, value in enumerate(values):
        data = data_of(frame[frame[panel] == value])
        one = alt.layer(*layers, data=data, name=f"panel_{number}")
        if value:
            room = PAGE_CHARACTERS // columns if columns > 1 else COLUMN_CHARACTERS
            lines = folded(value, room - 4)
            one = one.properties(title=alt.TitleParams(lines, anchor="middle", frame="group"))
        # The first panel's selection holds in all.
        made.append(one.add_params(zoom_of(number, zoom), *[picked] * (number == 0)))
    grid = alt.concat(*made, columns=columns, **of_all)
    # Paper has no pointer; ``style.printed`` turns the parameter off.
    names = list(frame[group].unique())
    return laid_out(grid.add_params(alt.param(POINTER, value=True)), columns, names)


def zoom_of(number: int, encodings: Sequence[Any]) -> alt.Parameter:
    """A panel is moved with the mouse, and zoomed with its wheel while Shift is held."""
    return alt.selection_interval(
        name=f"zoom_{number}",
        bind="scales",
        encodings=list(encodings),
        translate="[mousedown, window:mouseup] > window:mousemove!",
        zoom="wheel![event.shiftKey]",
    )


def with_deviations(means: pd.DataFrame) -> pd.DataFrame:
    """The table with ``low``, ``high`` and ``text`` in place of ``std`` and ``over``."""
    deviation = means["std"].fillna(0.0)
    text = [
        f"{mean:.2f} ± {std:.2f} ({over})" if over else f"{mean:.2f}"
        for mean, std, over in zip(means["mean"], deviation, means["over"], strict=True)
    ]
    ends = {"low": means["mean"] - deviation, "high": means["mean"] + deviation}
    return means.drop(columns=["std", "over"]).assign(**ends, text=text)


def deviation_note(means: pd.DataFrame) -> str:
    """What the bars of a chart show; empty if it has none.

    Args:
        means: columns ``std`` and ``over``.
    """
    over = means.loc[means["std"] > 0, "over"].unique()
    return f"bars: standard deviation over {' or '.join(over)}" if len(over) else ""


def data_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The table that a chart carries: numbers have 6 digits."""
    shown = frame.copy()
    for name in frame.select_dtypes("float"):
        shown[name] = [float(f"{value:.6g}") for value in frame[name]]
    return shown
