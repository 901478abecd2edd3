"""Learning curves: every step faint, the running mean above it."""

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
from statsmerging.report.palette import colour, line

#: Steps of the running mean, as a share of all.
WINDOW = 0.05

#: Panels in a row.
ACROSS = 4


@styled
def learning_curves(frame: pd.DataFrame, title: str) -> Figure:
    """One panel a method, one line a seed.

    Args:
        frame: ``frames.learning_curves`` of one quantity in one setting.
        title: of the figure.
    """
    titles = list(frame["title"].unique())
    seeds = list(frame["seed"].unique())
    figure, grid = panels(len(titles), across=ACROSS, height=1.7)
    for axes, name in zip(grid, titles, strict=True):
        rows = frame[frame["title"] == name]
        for seed, curve in rows.groupby("seed", sort=False):
            number = seeds.index(seed)
            steps, values, shade = curve["step"], curve["value"], colour(number)
            axes.plot(steps, values, color=shade, alpha=0.25, linewidth=0.5)
            axes.plot(steps, smooth(values), label=f"seed {seed}", color=shade, ls=line(number))
        axes.set_xlabel("step")
        whole_numbers(axes)
        panel_title(axes, name, min(ACROSS, len(titles)))
    for axes in grid[::ACROSS]:
        axes.set_ylabel(str(frame["quantity"].iloc[0]))
    most = max(grid, key=lambda axes: len(axes.lines))
    legend_below(figure, most)
    entitle(figure, f"{title} (thick: running mean over {WINDOW:.0%} of the steps)")
    return figure


def smooth(values: pd.Series) -> pd.Series:
    """Centred running mean."""
    return values.rolling(max(1, round(WINDOW * len(values))), center=True, min_periods=1).mean()
