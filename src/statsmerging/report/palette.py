"""Colours, markers and lines that tell categories apart, in print and to the colour-blind."""

from __future__ import annotations

#: The eight colours of Okabe and Ito (2008), without black, which stands for bounds.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")

#: Of what is a bound or a frame, not a result.
GREY = "#7f7f7f"

#: Matplotlib's names, and Plotly's, of the same shapes.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")

#: Line styles, matplotlib's and Plotly's; the style changes where the colours begin again.
LINES = ("-", "--", ":", "-.")
DASHES = ("solid", "dash", "dot", "dashdot")

#: Maps: of values around 0, and of values that are all positive.
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"


def colour(number: int) -> str:
    """Of the category with this number; colours repeat, together with another line and marker."""
    return OKABE_ITO[number % len(OKABE_ITO)]


def line(number: int, styles: tuple[str, ...] = LINES) -> str:
    """Style of its line."""
    return styles[number // len(OKABE_ITO) % len(styles)]


def marker(number: int, shapes: tuple[str, ...] = MARKERS) -> str:
    """Its marker."""
    return shapes[number % len(shapes)]
