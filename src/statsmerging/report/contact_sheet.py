"""A contact sheet: many small images in labelled rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from statsmerging.report.figures.style import drawn_text

#: Side of one image on paper, and the room for the labels of rows and columns, in inches.
SIDE, LEFT, TOP, EDGE = 0.6, 1.4, 0.3, 0.05


def contact_sheet(rows: Mapping[str, Sequence[Image.Image]], columns: Sequence[str]) -> Figure:
    """The figure; save it with ``savefig``.

    Args:
        rows: label → one RGB image for each column, of any size.
        columns: their headings.
    """
    width, height = LEFT + SIDE * len(columns) + EDGE, TOP + SIDE * len(rows) + EDGE
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.subplots_adjust(
        left=LEFT / width,
        right=1 - EDGE / width,
        bottom=EDGE / height,
        top=1 - TOP / height,
        wspace=0.05,
        hspace=0.05,
    )
    for axes, (label, images) in zip(grid, rows.items(), strict=True):
        axes[0].set_ylabel(drawn_text(label), rotation=0, ha="right", va="center", fontsize="small")
        for ax, image in zip(axes, images, strict=True):
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
    for ax, heading in zip(grid[0], columns, strict=True):
        ax.set_title(drawn_text(heading), fontsize="x-small")
    return figure
