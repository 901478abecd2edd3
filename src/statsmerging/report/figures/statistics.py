"""What the learner saw against what it chose, and how far the experts point the same way."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from statsmerging.report.figures.style import entitle, legend_below, panels, styled
from statsmerging.report.frames import axis_scale, drawn
from statsmerging.report.palette import DIVERGING, colour, marker


@styled
def statistics(frame: pd.DataFrame, title: str) -> Figure:
    """One panel a statistic: raw value across, coefficient up, one dot a layer and task.

    Args:
        frame: ``frames.statistics`` of one method in one setting.
        title: of the figure.
    """
    names = list(frame["statistic"].unique())
    kinds = list(frame["kind"].unique())
    figure, grid = panels(len(names), across=3, height=2.0, sharey=True)
    for axes, name in zip(grid, names, strict=True):
        rows = drawn(frame[frame["statistic"] == name])
        for number, kind in enumerate(kinds):
            dots = rows[rows["kind"] == kind]
            look = {"color": colour(number), "marker": marker(number), "label": kind}
            axes.scatter(dots["value"], dots["coefficient"], s=5, alpha=0.6, lw=0, **look)
        axes.set_title(name.replace("_", " "))
        axes.set_xscale(axis_scale(rows))
    for axes in grid[::3]:
        axes.set_ylabel("coefficient")
    legend_below(figure, grid[0], markers=2.5)
    entitle(figure, title)
    return figure


@styled
def cosine_matrix(frame: pd.DataFrame, title: str) -> Figure:
    """Tasks down and across, cosines in the cells.

    Args:
        frame: ``frames.cosines`` of one setting.
        title: of the figure.
    """
    tasks = list(frame["task"].unique())
    table = frame.pivot(index="task", columns="other", values="cosine").loc[tasks, tasks]
    side = 1.6 + 0.4 * len(tasks)
    figure, (axes,) = panels(1, across=1, height=side - 0.5, width=side + 0.8)
    picture = axes.imshow(table.to_numpy(), cmap=DIVERGING, vmin=-1, vmax=1)
    axes.set_xticks(range(len(tasks)), tasks, rotation=90)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.grid(visible=False)
    for row, values in enumerate(table.to_numpy()):
        for column, value in enumerate(values):
            shade = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, size=6)
    figure.colorbar(picture, ax=axes, label="cosine of task vectors", shrink=0.8)
    entitle(figure, title)
    return figure
