"""The figures of a folder of runs for the browser, with the numbers under the pointer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from statsmerging.report import frames
from statsmerging.report.palette import DASHES, GREY, SYMBOLS, colour, line, marker
from statsmerging.report.runs import runs_by_setting

#: A map in Plotly's own name; reversed, so that red is positive.
DIVERGING = "RdBu_r"


def interactive_figures(folder: Path) -> dict[str, go.Figure]:
    """Title → figure, for all finished runs below a folder; only what the runs have data for.

    The background is transparent and the text grey, so that a page may be light or dark.

    Raises:
        UserError: no finished run.
    """
    groups = runs_by_setting(folder)
    figures: dict[str, go.Figure] = {}
    for name, frame in frames.split(frames.accuracies(groups), "setting"):
        figures[f"Accuracy on every task · {name}"] = dots(frame)
    for name, frame in frames.split(frames.coefficients(groups), "title", "setting"):
        figures[f"Coefficients · {name}"] = heatmap(frame)
    for name, frame in frames.split(frames.learning_curves(groups), "quantity", "setting"):
        figures[f"Learning curves · {name}"] = learning_curves(frame)
    return figures


def dots(frame: pd.DataFrame) -> go.Figure:
    """Tasks as rows, methods as markers, means over the seeds; from ``frames.accuracies``."""
    figure = go.Figure()
    for number, (title, rows) in enumerate(frame.groupby("title", sort=False)):
        means = rows.groupby("task", sort=False)["accuracy"].mean()
        look = {"color": colour(number), "symbol": marker(number, SYMBOLS), "size": 10}
        figure.add_scatter(x=means, y=means.index, mode="markers", name=title, marker=look)
    figure.update_xaxes(title="top-1 accuracy, %")
    figure.update_yaxes(autorange="reversed")
    return neutral(figure)


def heatmap(frame: pd.DataFrame) -> go.Figure:
    """Layers down, by kind of tensor, tasks across; from ``frames.coefficients`` of one method."""
    rows = frame.sort_values("kind", kind="stable")
    table = rows.pivot(index="layer", columns="task", values="coefficient")
    table = table.loc[rows["layer"].unique(), rows["task"].unique()]
    limit = max(table.abs().to_numpy().max(), 1e-6)
    figure = go.Figure(
        go.Heatmap(
            x=table.columns,
            y=table.index,
            z=table.to_numpy(),
            colorscale=DIVERGING,
            zmin=-limit,
            zmax=limit,
            colorbar={"title": "coefficient"},
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=max(300, 12 * len(table)))
    return neutral(figure)


def learning_curves(frame: pd.DataFrame) -> go.Figure:
    """One panel a method, one line a seed; from ``frames.learning_curves`` of one quantity."""
    titles = list(frame["title"].unique())
    figure = make_subplots(len(titles), 1, subplot_titles=titles, shared_xaxes=True)
    seeds = list(frame["seed"].unique())
    for (title, seed), rows in frame.groupby(["title", "seed"], sort=False):
        number = seeds.index(seed)
        figure.add_scatter(
            x=rows["step"],
            y=rows["value"],
            name=f"seed {seed}",
            legendgroup=f"seed {seed}",
            showlegend=title == titles[0],
            line={"color": colour(number), "dash": line(number, DASHES), "width": 1},
            row=titles.index(title) + 1,
            col=1,
        )
    figure.update_xaxes(title="step", row=len(titles))
    figure.update_layout(height=220 * len(titles))
    return neutral(figure)


def neutral(figure: go.Figure) -> go.Figure:
    """Legible on light and on dark pages."""
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY},
        margin={"t": 40},
    )
    faint = {"gridcolor": "rgba(127,127,127,0.25)", "zerolinecolor": "rgba(127,127,127,0.5)"}
    figure.update_xaxes(automargin=True, **faint)
    figure.update_yaxes(automargin=True, **faint)
    return figure
