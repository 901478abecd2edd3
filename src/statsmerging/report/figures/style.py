"""The look of all figures: colours, shapes, dashes and sizes; storage as PDF and PNG."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import altair as alt
import vl_convert
from PIL import Image

from statsmerging.runs.results import BOUND_TITLES

#: A chart as JSON, in the grammar of Vega-Lite.
Spec = dict[str, Any]

#: Endings of the files of a figure.
FORMATS = ("pdf", "png")

#: Widths of a figure on paper, in points: of several panels side by side, and of one, which fits a
#: column of a paper that has two. Resolution of pictures, in dots per inch.
PAGE, COLUMN, DPI = 7 * 72, 3.4 * 72, 200

#: Characters of a title that fit across a page, and across a column.
PAGE_CHARACTERS, COLUMN_CHARACTERS = 100, 48

#: Parameter of a chart: true where a pointer may rest on its marks, false on paper.
POINTER = "pointer"

#: The colours of Okabe and Ito (2008) that are visible on white paper and on dark pages.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

#: Colours of the bounds, which are no results: dull, the lower bound lightest.
BOUND_COLOURS = dict(
    zip(BOUND_TITLES.values(), ("#a6a6a6", "#666666", "#8a6a4f", "#4f7f8a"), strict=True)
)

#: A bound is an upright bar; the last two shapes, a cross and a star, are not built in.
BOUND_SHAPE = "M-.12,-1H.12V1H-.12Z"
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down", "cross"),
    "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
    "M0,-1.1L.3,-.35L1.1,-.35L.45,.1L.7,.9L0,.4L-.7,.9L-.45,.1L-1.1,-.35L-.3,-.35Z",
)

#: Lengths of strokes and gaps; the dash changes where the colours begin again.
BOUND_DASH = (2, 2)
DASHES = ((1, 0), (6, 3), (1, 2), (6, 2, 1, 2))

#: Sizes and colours of the axes on paper; ``figures.js`` has those of the page, a chart has none.
_PAPER: Spec = {
    "background": "white",
    # The converter brings this font along, so that a figure is the same on every machine.
    "font": "Liberation Sans",
    "axis": {
        "gridColor": "#dddddd",
        "gridWidth": 0.5,
        "domainWidth": 0.6,
        "tickWidth": 0.6,
        "tickSize": 3,
        "labelFontSize": 7,
        "titleFontSize": 8,
        "titleFontWeight": "normal",
    },
    "concat": {"spacing": 10},
    "header": {"labelFontSize": 8, "labelLimit": 0, "labelPadding": 3},
    "line": {"strokeWidth": 1.2},
    "point": {"size": 22},
    "rule": {"strokeWidth": 0.8},
    "text": {"fontSize": 6},
    "title": {
        "fontSize": 8,
        "fontWeight": "normal",
        "anchor": "start",
        "subtitleFontSize": 7,
        "offset": 4,
    },
    "view": {"stroke": None, "continuousHeight": 110},
}


def colours(names: Sequence[str]) -> alt.Scale:
    """Colour of each name; bounds have their own, of the others the colours repeat."""
    return _scale(names, OKABE_ITO, BOUND_COLOURS)


def shapes(names: Sequence[str]) -> alt.Scale:
    """Marker of each name; with 6 colours and 8 markers, 24 names differ."""
    return _scale(names, SHAPES, dict.fromkeys(BOUND_COLOURS, BOUND_SHAPE))


def dashes(names: Sequence[str]) -> alt.Scale:
    """Dash of each name's line, so that names of one colour differ."""
    repeated = [dash for dash in DASHES for _ in OKABE_ITO]
    return _scale(names, repeated, dict.fromkeys(BOUND_COLOURS, BOUND_DASH))


def _scale(names: Sequence[str], looks: Sequence[Any], bounds: dict[str, Any]) -> alt.Scale:
    others = [name for name in names if name not in bounds]
    chosen = {name: looks[number % len(looks)] for number, name in enumerate(others)} | bounds
    return alt.Scale(domain=list(names), range=[chosen[name] for name in names])


def heat(least: float, greatest: float) -> alt.Scale:
    """Colours of values: centred at 0 where one is negative, so that its sign is visible."""
    if least >= 0:
        return alt.Scale(scheme="cividis", domain=[0.0, max(greatest, 1e-6)])
    limit = max(-least, greatest)
    return alt.Scale(scheme="redblue", reverse=True, domain=[-limit, limit])


def folded(text: str, width: int) -> list[str]:
    """Lines of at most ``width`` characters; names with a hyphen stay whole."""
    return textwrap.wrap(text, width, break_on_hyphens=False)


def spec_of(chart: alt.TopLevelMixin) -> Spec:
    """The chart as JSON, without a theme and without the address of the grammar."""
    with alt.data_transformers.enable("default", max_rows=None):
        spec: Spec = chart.to_dict()
    return {key: value for key, value in spec.items() if key not in ("config", "$schema")}


def printed(chart: alt.TopLevelMixin, title: str) -> dict[str, bytes]:
    """The content of the files: format → bytes. The same chart gives the same bytes.

    Args:
        chart: of ``charts.chart``; its own title becomes a line below ``title``.
        title: of the figure.
    """
    spec = spec_of(chart)
    if title:
        several = spec["usermeta"]["columns"] > 1
        room = PAGE_CHARACTERS if several else COLUMN_CHARACTERS
        notes = spec.get("title", [])
        # Notes are smaller than the title.
        below = [
            line
            for note in ([notes] if isinstance(notes, str) else notes)
            for line in folded(note, room * 5 // 4)
        ]
        spec["title"] = {"text": folded(title, room), "subtitle": below, "fontSize": 9}
    for parameter in spec.get("params", []):
        if parameter["name"] == POINTER:
            parameter["value"] = False
    columns, paper = spec["usermeta"]["columns"], _paper(spec)
    width = paper / columns - 60
    svg, drawn = _svg(spec, width)
    # Widths of charts exclude their axes, whose labels have any length: measure, then fit.
    svg, _ = _svg(spec, max(40.0, width + (paper - drawn) / columns))
    picture = Image.open(BytesIO(vl_convert.svg_to_png(svg, scale=DPI / 72)))
    # Written anew, a picture is a quarter of the size, and tells its width in inches.
    smaller = BytesIO()
    picture.convert("RGB").save(smaller, "png", dpi=(DPI, DPI))
    return {"pdf": _sorted_resources(vl_convert.svg_to_pdf(svg)), "png": smaller.getvalue()}


def _paper(spec: Spec) -> float:
    """Width of the whole figure on paper."""
    return PAGE if spec["usermeta"]["columns"] > 1 else COLUMN


def _svg(spec: Spec, width: float) -> tuple[str, float]:
    """The figure, of panels of this width, and its whole width."""
    meta = spec["usermeta"]
    # The widest entry of the legend: 3.6 points each character, 24 for its symbol and a gap.
    entry = 3.6 * meta["longest"] + 24
    room = (width + 60) * meta["columns"] - 60
    legend = {
        "orient": "bottom",
        "offset": 8,
        "columns": max(1, int(room / entry)),
        "gradientLength": 200 if meta["columns"] > 1 else 150,
        "labelFontSize": 7,
        # Beside its symbol.
        "labelLimit": room - 14,
        "titleFontSize": 7,
        "titleFontWeight": "normal",
    }
    # A name that takes more of the width ends in an ellipsis; beside a legend it has less room.
    share = 3 if meta["columns"] == 1 and meta["longest"] else 2
    axis = _PAPER["axis"] | {"labelLimit": _paper(spec) // share}
    view = _PAPER["view"] | {"continuousWidth": width, "discreteWidth": width}
    config = _PAPER | {"axis": axis, "legend": legend, "view": view}
    svg = vl_convert.vegalite_to_svg(spec, config=config, allowed_base_urls=[])
    # Identifiers count the charts that the process has drawn: begin at 0 in each.
    names: dict[str, str] = {}
    svg = re.sub(
        r'(?:(?<=id=")|(?<=url\(#))(clip|gradient_)\d+',
        lambda id_: names.setdefault(id_[0], f"{id_[1]}{len(names)}"),
        svg,
    )
    size = re.search(r'width="([\d.]+)"', svg)
    assert size is not None
    return svg, float(size[1])


def _sorted_resources(pdf: bytes) -> bytes:
    """The document with the entries of each resource dictionary in order.

    The converter writes them in the random order of a hash map. The length stays, and with it
    every offset in the document's table of objects.
    """

    def ordered(entries: re.Match[bytes]) -> bytes:
        return b"".join(sorted(entries[0].splitlines(keepends=True)))

    return re.sub(rb"(?: +/\w+ \d+ 0 R\n){2,}", ordered, pdf)
