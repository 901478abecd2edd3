"""The figures for the browser, with the numbers under the pointer."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from statsmerging.report.drawings import Drawing
from statsmerging.report.frames import axis_scale, by_depth
from statsmerging.report.palette import (
    DASHES,
    DIVERGING,
    SYMBOLS,
    TEXT_GREY,
    category,
    line,
    marker,
    scale,
)
from statsmerging.report.series import LABELS

#: Height of a panel of lines or dots, of a row of a map, and of what stands around, in pixels.
PANEL, CELL, FRAME = 260, 16, 140

#: Height of a marker among others of its row, in pixels.
DODGE = 5

#: Of more steps than this, not every one has a tick.
TICKS = 24


def interactive_figures(planned: Iterable[Drawing]) -> dict[str, go.Figure]:
    """Title → figure. The background is clear and the text grey: a page may be light or dark."""
    return {drawing.title: _neutral(_figure(drawing)) for drawing in planned}


def _figure(drawing: Drawing) -> go.Figure:
    match drawing.kind:
        case "dots":
            return dots(drawing.frame)
        case "severity" | "tasks" | "images":
            return against(drawing.frame, LABELS[drawing.kind])
        case "heatmap":
            return heatmap(drawing.frame)
        case "depth":
            return depth(drawing.frame)
        case "learning_curves":
            return learning_curves(drawing.frame)
        case "statistics":
            return statistics(drawing.frame)
        case "cosines":
            return cosine_matrix(drawing.frame)


def dots(frame: pd.DataFrame) -> go.Figure:
    """Tasks as rows, methods as markers, deviations over the seeds; from ``frames.accuracies``."""
    unseen = frame["task"] + " (unseen)"
    named = frame.assign(task=frame["task"].where(frame["seen"].astype(bool), unseen))
    figure = go.Figure()
    for number, (title, rows) in enumerate(named.groupby("title", sort=False)):
        values = rows.groupby("task", sort=False)["accuracy"].agg(["mean", "std"])
        figure.add_scatter(
            x=values["mean"],
            y=values.index,
            error_x={"array": values["std"].fillna(0.0)},
            mode="markers",
            orientation="h",
            name=title,
            marker={"color": category(str(title), number), "symbol": marker(number, SYMBOLS)},
        )
    figure.update_traces(marker_size=9)
    # Without a range, plotly begins horizontal groups at 0.
    figure.update_xaxes(title="top-1 accuracy, %", range=_range(figure))
    figure.update_yaxes(autorange="reversed")
    # Markers of a row stand above one another, each method at its own height.
    row = max(2 * CELL, DODGE * len(figure.data))
    height = FRAME + row * frame["task"].nunique()
    figure.update_layout(height=height, scattermode="group", scattergap=0.3)
    return figure


def _range(figure: go.Figure) -> list[float]:
    """From the least to the greatest accuracy with its deviation, and a little room."""
    values = [
        mean + sign * deviation
        for trace in figure.data
        for mean, deviation in zip(trace.x, trace.error_x.array, strict=True)
        for sign in (-1, 1)
    ]
    room = 0.05 * (max(values) - min(values)) + 0.5
    return [min(values) - room, max(values) + room]


def against(frame: pd.DataFrame, label: str) -> go.Figure:
    """Average accuracy against ``x``; from ``report.series``. A click on the legend hides a line.

    Args:
        frame: of one problem.
        label: what ``x`` is.
    """
    names, lines = list(frame["panel"].unique()), list(frame["line"].unique())
    figure = make_subplots(1, len(names), subplot_titles=names, shared_yaxes=True)
    for keys, rows in frame.groupby(["panel", "line"], sort=False):
        name, text = map(str, keys)
        number = lines.index(text)
        shade = category(text, number)
        figure.add_scatter(
            x=rows["x"],
            y=rows["mean"],
            error_y={"array": rows["std"].fillna(0.0)},
            name=text,
            legendgroup=text,
            showlegend=name == frame.loc[frame["line"] == text, "panel"].iloc[0],
            line={"color": shade, "dash": line(number, DASHES)},
            marker={"color": shade, "symbol": marker(number, SYMBOLS)},
            row=1,
            col=names.index(name) + 1,
        )
    if not pd.api.types.is_numeric_dtype(frame["x"]):
        figure.update_xaxes(categoryorder="array", categoryarray=list(frame["x"].unique()))
    figure.update_xaxes(title=label)
    figure.update_yaxes(title="average accuracy, %", col=1)
    figure.update_layout(height=FRAME + PANEL)
    return figure


def heatmap(frame: pd.DataFrame) -> go.Figure:
    """Layers down, by kind of tensor, tasks across; from ``frames.coefficients`` of one method."""
    rows = frame.sort_values(["kind", "part"], kind="stable")
    return _map(rows, "layer", "task", "coefficient")


def cosine_matrix(frame: pd.DataFrame) -> go.Figure:
    """Tasks down and across; from ``frames.cosines`` of one setting."""
    figure = _map(frame, "task", "other", "cosine")
    figure.update_traces(zmin=-1, zmax=1, colorscale=DIVERGING, texttemplate="%{z:.2f}")
    return figure


def depth(frame: pd.DataFrame) -> go.Figure:
    """A panel a kind of tensor, a line a task; from ``frames.coefficients`` of one method."""
    means = by_depth(frame)
    figure = _lines(means, "kind", "task", ("depth", "coefficient"), "block")
    if means["depth"].nunique() <= TICKS:
        figure.update_xaxes(dtick=1)
    return figure


def learning_curves(frame: pd.DataFrame) -> go.Figure:
    """A panel a method, a line a seed; from ``frames.learning_curves`` of one quantity."""
    named = frame.assign(seed="seed " + frame["seed"].astype(str))
    figure = _lines(named, "title", "seed", ("step", "value"), "step")
    figure.update_yaxes(title=frame["quantity"].iloc[0])
    return figure


def statistics(frame: pd.DataFrame) -> go.Figure:
    """A panel a statistic, a dot a layer and task; from ``frames.statistics`` of one method."""
    named = frame.assign(name=frame["layer"] + ", " + frame["task"])
    figure = _lines(named, "statistic", "kind", ("value", "coefficient"), "", hover="name")
    figure.update_traces(mode="markers", marker_size=4)
    for number, (_, rows) in enumerate(frame.groupby("statistic", sort=False), start=1):
        figure.update_xaxes(type=axis_scale(rows), exponentformat="power", row=number)
    return figure


def _lines(
    frame: pd.DataFrame,
    panel: str,
    group: str,
    axes: tuple[str, str],
    label: str,
    hover: str | None = None,
) -> go.Figure:
    """Panels below one another, in each a line for every group.

    Args:
        frame: tidy.
        panel: column that tells panels apart.
        group: column that tells lines apart.
        axes: columns across and up.
        label: below the last panel.
        hover: column whose text stands under the pointer.
    """
    names, groups = list(frame[panel].unique()), list(frame[group].unique())
    figure = make_subplots(len(names), 1, subplot_titles=[name.replace("_", " ") for name in names])
    for keys, rows in frame.groupby([panel, group], sort=False):
        name, text = map(str, keys)
        number = groups.index(text)
        figure.add_scatter(
            x=rows[axes[0]],
            y=rows[axes[1]],
            mode="lines",
            name=text,
            legendgroup=text,
            showlegend=name == frame.loc[frame[group] == text, panel].iloc[0],
            hovertext=None if hover is None else rows[hover],
            line={"color": category(text, number), "dash": line(number, DASHES), "width": 1.5},
            row=names.index(name) + 1,
            col=1,
        )
    figure.update_xaxes(title=label, row=len(names))
    figure.update_yaxes(title=axes[1])
    figure.update_layout(height=FRAME + PANEL * len(names))
    return figure


def _map(frame: pd.DataFrame, down: str, across: str, value: str) -> go.Figure:
    table = frame.pivot(index=down, columns=across, values=value)
    table = table.loc[frame[down].unique(), frame[across].unique()]
    colours, low, high = scale(frame[value].min(), frame[value].max())
    cells = go.Heatmap(
        x=table.columns,
        y=table.index,
        z=table.to_numpy(),
        colorscale=colours,
        zmin=low,
        zmax=high,
        colorbar={"title": value},
    )
    figure = go.Figure(cells)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=FRAME + CELL * len(table))
    return figure


def _neutral(figure: go.Figure) -> go.Figure:
    """Legible on light and on dark pages."""
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        paper_bgcolor=clear, plot_bgcolor=clear, font={"color": TEXT_GREY}, margin={"t": 40}
    )
    faint = {"gridcolor": "rgba(127,127,127,0.25)", "zerolinecolor": "rgba(127,127,127,0.5)"}
    figure.update_xaxes(automargin=True, **faint)
    figure.update_yaxes(automargin=True, **faint)
    return figure
