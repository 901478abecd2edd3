"""Merging coefficients: a map of all, and their course through the depth of the network."""

from __future__ import annotations

import re

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from statsmerging.report.figures.style import (
    PAGE,
    entitle,
    legend_below,
    panel_title,
    panels,
    styled,
    whole_numbers,
)
from statsmerging.report.frames import by_depth
from statsmerging.report.palette import colour, line, scale

#: Of more blocks or tensors only every second, third, … is named.
NAMED = 16

#: So many characters of all tasks' names fit beside one another across the page.
BESIDE = 72

#: Height of a letter of a name that stands upright, in inches.
LETTER = 0.06


@styled
def heatmap(frame: pd.DataFrame, title: str) -> Figure:
    """A panel for each tensor of a block, blocks down, tasks across; above, all other tensors.

    Args:
        frame: ``frames.coefficients`` of one method in one setting.
        title: of the figure.
    """
    outside = frame[frame["block"] == ""]
    inside = frame[frame["block"] != ""].sort_values("kind", kind="stable")
    parts = {str(part): rows for part, rows in inside.groupby("part", sort=False)}
    tasks, blocks = frame["task"].nunique(), inside["block"].nunique()
    across = max(2, min(5, int(PAGE / (0.5 + 0.12 * tasks))))
    rows = -(-len(parts) // across)
    heights = [0.15 * outside["layer"].nunique() + 0.2, *[0.3 + 0.1 * min(blocks, NAMED)] * rows]
    longest = max(map(len, frame["task"].unique()))
    beside = tasks * (longest + 1) <= BESIDE
    names = LETTER * longest * (1 if beside else 2) + 0.8
    figure = Figure(figsize=(PAGE, sum(heights) + names), layout="constrained")
    grid = figure.add_gridspec(1 + rows, across, height_ratios=heights)
    name, low, high = scale(frame["coefficient"].min(), frame["coefficient"].max())
    colours = ScalarMappable(Normalize(low, high), name)
    if len(outside):
        axes = figure.add_subplot(grid[0, :])
        _map(axes, outside.assign(row=outside["layer"]), colours)
        _name_tasks(axes, outside, rotation=0 if beside else 90)
    for place, (part, values) in enumerate(parts.items()):
        axes = figure.add_subplot(grid[1 + place // across, place % across])
        _map(axes, values.assign(row=values["block"].map(_short_name)), colours)
        panel_title(axes, part, across)
        axes.tick_params(labelleft=place % across == 0)
        if place % across == 0:
            axes.set_ylabel("block")
        if place + across >= len(parts):
            _name_tasks(axes, values, rotation=90)
        else:
            axes.set_xticks([])
    figure.colorbar(colours, ax=figure.axes, label="coefficient", aspect=40)
    entitle(figure, title)
    return figure


def _map(axes: Axes, values: pd.DataFrame, colours: ScalarMappable) -> None:
    table = values.pivot(index="row", columns="task", values="coefficient")
    table = table.loc[values["row"].unique(), values["task"].unique()]
    axes.imshow(table.to_numpy(), cmap=colours.cmap, clim=colours.get_clim(), aspect="auto")
    axes.grid(visible=False)
    step = -(-len(table) // NAMED)
    axes.set_yticks(range(0, len(table), step), table.index[::step])


def _name_tasks(axes: Axes, values: pd.DataFrame, rotation: int) -> None:
    tasks = list(values["task"].unique())
    axes.set_xticks(range(len(tasks)), tasks, rotation=rotation)


def _short_name(block: str) -> str:
    """The number of a block; in a residual network with that of its stage."""
    return re.sub(r"^.*?(\d[\d.]*)$", r"\1", block)


@styled
def depth(frame: pd.DataFrame, title: str) -> Figure:
    """One panel for each kind of tensor, one line a task: mean over the kind's tensors of a block.

    Args:
        frame: as for ``heatmap``; tensors outside of blocks are left out.
        title: of the figure.
    """
    means = by_depth(frame)
    kinds = list(means["kind"].unique())
    figure, grid = panels(len(kinds), across=3, height=2.2, sharey=True)
    for axes, kind in zip(grid, kinds, strict=True):
        of_kind = means[means["kind"] == kind]
        for number, (task, rows) in enumerate(of_kind.groupby("task", sort=False)):
            axes.plot(
                rows["depth"],
                rows["coefficient"],
                label=str(task),
                color=colour(number),
                linestyle=line(number),
            )
        axes.set_xlabel("block")
        panel_title(axes, kind, across=3)
        whole_numbers(axes)
    for axes in grid[::3]:
        axes.set_ylabel("coefficient")
    legend_below(figure, grid[0])
    entitle(figure, title)
    return figure
