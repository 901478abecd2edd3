"""Accuracies: task by task, and against what the images or the tasks were made to be."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from statsmerging.report.figures.style import (
    entitle,
    legend_below,
    panel_title,
    panels,
    styled,
    whole_numbers,
)
from statsmerging.report.palette import category, colour, line, marker
from statsmerging.runs.results import BOUND_TITLES, BOUNDS

#: Methods in one dot plot; more could not be told apart.
SHOWN = 8

#: The method this software is about: drawn even where others are better.
OWN = "stats_merging"

#: Panels in a row.
ACROSS = 3


@styled
def dots(frame: pd.DataFrame, title: str) -> Figure:
    """Tasks as rows, methods as markers with deviations over the seeds, a grey bar between bounds.

    Args:
        frame: ``frames.accuracies`` in one setting; of many methods the best are drawn.
        title: of the figure.
    """
    methods = frame.loc[~frame["method"].isin(BOUNDS), "method"].nunique()
    if methods > SHOWN:
        frame = best_methods(frame)
        title = f"{title} ({SHOWN} of {methods} methods: our own and the best on average)"
    tasks = list(frame["task"].unique())
    keys = ["method", "title", "task"]
    means = frame.groupby(keys, sort=False)["accuracy"].agg(["mean", "std"]).reset_index()
    figure, (axes,) = panels(1, across=1, height=0.8 + 0.32 * len(tasks))
    places = {task: place for place, task in enumerate(tasks)}
    for name in BOUNDS:
        rows = means[means["method"] == name]
        if len(rows):
            axes.plot(
                rows["mean"],
                rows["task"].map(places),
                label=BOUND_TITLES[name],
                color=category(BOUND_TITLES[name], 0),
                marker="|",
                markersize=8,
                markeredgewidth=2,
                linestyle="",
            )
    merged = means[~means["method"].isin(BOUNDS)]
    titles = list(merged["title"].unique())
    for number, title_of in enumerate(titles):
        rows = merged[merged["title"] == title_of]
        shift = 0.5 * ((number + 0.5) / len(titles) - 0.5)
        axes.errorbar(
            rows["mean"],
            rows["task"].map(places) + shift,
            xerr=rows["std"].fillna(0.0),
            label=title_of,
            color=colour(number),
            marker=marker(number),
            linestyle="",
            elinewidth=0.8,
        )
    labels = [task if seen else f"{task} (unseen)" for task, seen in _seen(frame).items()]
    axes.set_yticks(range(len(tasks)), labels)
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlabel("top-1 accuracy, %")
    legend_below(figure, axes, columns=3)
    entitle(figure, title)
    return figure


@styled
def against(frame: pd.DataFrame, title: str, label: str) -> Figure:
    """Average accuracy against ``x``: one line a method, one panel a kind, bars over the seeds.

    Args:
        frame: a table of ``report.series`` for one problem.
        title: of the figure.
        label: what ``x`` is.
    """
    names = list(frame["panel"].unique())
    bounds = [text for text in BOUND_TITLES.values() if text in set(frame["line"])]
    lines = [text for text in frame["line"].unique() if text not in bounds] + bounds
    figure, grid = panels(len(names), across=ACROSS, height=2.2, sharey=True)
    for axes, name in zip(grid, names, strict=True):
        for text, rows in frame[frame["panel"] == name].groupby("line", sort=False):
            number = lines.index(text)
            bound = text in BOUND_TITLES.values()
            axes.errorbar(
                rows["x"],
                rows["mean"],
                yerr=rows["std"].fillna(0.0),
                label=str(text),
                color=category(str(text), number),
                marker="" if bound else marker(number),
                linestyle=":" if bound else line(number),
                elinewidth=0.8,
            )
        axes.set_xlabel(label)
        panel_title(axes, name, ACROSS)
        if pd.api.types.is_numeric_dtype(frame["x"]):
            whole_numbers(axes)
    for axes in grid[::ACROSS]:
        axes.set_ylabel("average accuracy, %")
    legend_below(figure, max(grid, key=lambda axes: len(axes.lines)), columns=3)
    entitle(figure, title)
    return figure


def best_methods(frame: pd.DataFrame, count: int = SHOWN) -> pd.DataFrame:
    """Bounds, StatsMerging, and others with the best averages over seen tasks, in their order."""
    merged = frame[frame["seen"] & ~frame["method"].isin(BOUNDS)]
    means = merged.groupby("method")["accuracy"].mean()
    own = means.index.intersection([OWN])
    best = means.drop(own).nlargest(count - len(own)).index
    return frame[frame["method"].isin([*BOUNDS, *own, *best])]


def _seen(frame: pd.DataFrame) -> dict[str, bool]:
    return dict(zip(frame["task"], frame["seen"], strict=True))
