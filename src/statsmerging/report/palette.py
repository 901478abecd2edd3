"""Colours, markers and lines that tell categories apart, in print and to the colour-blind."""

from __future__ import annotations

from statsmerging.runs.results import BOUND_TITLES

#: Those colours of Okabe and Ito (2008) that show on white paper and on dark pages.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

#: Of bounds, which are no results: dull, the lower one the lightest.
_BOUND_COLOURS = ("#a6a6a6", "#666666", "#8a6a4f", "#4f7f8a")

#: Of text that is read on light and on dark pages.
TEXT_GREY = "#7f7f7f"

_BOUNDS = dict(zip(BOUND_TITLES.values(), _BOUND_COLOURS, strict=True))

#: Matplotlib's names, and Plotly's, of the same shapes.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")

#: Line styles, matplotlib's and Plotly's; the style changes where the colours begin again.
LINES = ("-", "--", ":", "-.")
DASHES = ("solid", "dash", "dot", "dashdot")

#: Maps, by the name that matplotlib and Plotly share: of values around 0, and of values above 0.
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"


def colour(number: int) -> str:
    """Of the category with this number; colours repeat, together with another line and marker."""
    return OKABE_ITO[number % len(OKABE_ITO)]


def category(name: str, number: int) -> str:
    """Its colour, or that of the bound which has this name."""
    return _BOUNDS.get(name) or colour(number)


def line(number: int, styles: tuple[str, ...] = LINES) -> str:
    """Style of its line."""
    return styles[number // len(OKABE_ITO) % len(styles)]


def marker(number: int, shapes: tuple[str, ...] = MARKERS) -> str:
    """Its marker."""
    return shapes[number % len(shapes)]


def scale(least: float, greatest: float) -> tuple[str, float, float]:
    """Map of values, and the values at its ends: centred at 0, so that a negative value shows."""
    if least >= 0:
        return SEQUENTIAL, 0.0, max(greatest, 1e-6)
    limit = max(-least, greatest)
    return DIVERGING, -limit, limit
