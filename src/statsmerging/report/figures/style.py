"""How all printed figures look, and how they are stored."""

from __future__ import annotations

import logging
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from statsmerging.errors import printable

#: Legible at the width of a page, about 7 inches; text stays text in PDF.
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "figure.titlesize": 9,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
}

#: Width of a page and resolution of pictures, in inches and dots per inch.
PAGE, DPI = 7.0, 200

#: Endings of the files of a figure.
FORMATS = ("pdf", "png")

#: Characters that fit across a page at the sizes above.
PAGE_CHARACTERS = 100

# Each glyph of an embedded font is worth a line to it.
logging.getLogger("fontTools").setLevel(logging.WARNING)

#: Applied to a function that draws: everything it makes has this look.
styled = rc_context(_STYLE)


def panels(
    count: int, *, across: int, height: float, width: float = PAGE, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels, of which the last may stay empty.

    Args:
        count: of panels.
        across: panels in a row at most.
        height: of one row, in inches.
        width: of the figure, in inches.
        shared: further arguments of ``Figure.subplots``.
    """
    columns = min(across, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False, **shared)).ravel()
    for spare in grid[count:]:
        spare.remove()
    return figure, list(grid[:count])


def drawn_text(text: str) -> str:
    """Text as matplotlib draws it: no part of it is mathematics, nothing in it invisible."""
    return printable(text).replace("$", r"\$")


def entitle(figure: Figure, title: str) -> None:
    """A title of the whole figure, in several lines if it is long."""
    figure.suptitle(_folded(title, PAGE_CHARACTERS))


def panel_title(axes: Axes, title: str, across: int) -> None:
    """A title of one panel, in several lines if it is wider than its share of the page."""
    axes.set_title(_folded(title, PAGE_CHARACTERS // across - 4))


def _folded(text: str, width: int) -> str:
    """Names with a hyphen stay whole."""
    return textwrap.fill(text, width, break_on_hyphens=False)


def whole_numbers(axes: Axes) -> None:
    """Ticks of the horizontal axis, where nothing lies between them."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend_below(figure: Figure, axes: Axes, columns: int = 4, markers: float = 1.0) -> None:
    """One legend for all panels, of what one of them shows.

    Args:
        figure: that has the legend.
        axes: whose entries it shows.
        columns: of the legend at most.
        markers: their size, as a multiple of that in the panels.
    """
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        markerscale=markers,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


@styled
def save(figure: Figure, file: Path, kind: str) -> None:
    """Store a figure in one of ``FORMATS``; the same figure gives the same file."""
    if kind == "pdf":
        figure.savefig(file, format=kind, metadata={"CreationDate": None})
    else:
        figure.savefig(file, format=kind, dpi=DPI)
