"""Pictures outside of a report: maps of one run for loggers, contact sheets of images."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
from PIL import Image

from statsmerging.errors import printable
from statsmerging.report.drawings import Drawing, Kind
from statsmerging.report.figures.charts import chart
from statsmerging.report.figures.parts import laid_out
from statsmerging.report.figures.style import DPI, printed
from statsmerging.report.frames import names_of
from statsmerging.runs.layer_tables import of_directions, of_layers, read_coefficients

#: Side of an image on a contact sheet, and the room for a row's label, in points.
SIDE, LABEL = 43, 100


def coefficient_pictures(path: Path) -> dict[str, Image.Image]:
    """Name in a logger → picture, from ``coefficients.parquet``; none without the file.

    Each method has ``coefficients/METHOD``, layers × tasks; one with singular directions also
    ``directions/METHOD``. Colours are centred at 0 where a coefficient is negative, so that its
    sign is visible.
    """
    if not path.exists():
        return {}
    table = read_coefficients(path)
    shown: list[tuple[str, Kind, pd.DataFrame]] = [
        ("coefficients", "heatmap", of_layers(table)),
        ("directions", "directions", of_directions(table)),
    ]
    pictures = {}
    for name, kind, frame in shown:
        for method, rows in frame.join(names_of(frame["layer"])).groupby("method", sort=False):
            content = printed(chart(Drawing(kind, str(method), rows)), str(method))["png"]
            pictures[f"{name}/{method}"] = Image.open(BytesIO(content)).convert("RGB")
    return pictures


def contact_sheet(
    rows: Mapping[str, Sequence[Image.Image]], columns: Sequence[str]
) -> dict[str, bytes]:
    """Many small images in labelled rows and columns: format → content of the file.

    Args:
        rows: label → one RGB image for each column, of any size.
        columns: their headings.
    """
    cells = pd.DataFrame(
        [
            {"row": printable(label), "column": number, "image": _address(image)}
            for label, images in rows.items()
            for number, image in enumerate(images)
        ]
    )
    headings = json.dumps([printable(heading) for heading in columns])
    bare: dict[str, Any] = {"title": None, "domain": False, "ticks": False}
    sheet = (
        alt.Chart(
            cells,
            width=alt.Step(SIDE),
            height=alt.Step(SIDE),
            # Sheets of as many columns have one width, whatever their labels.
            autosize="none",
            padding={"left": LABEL, "top": 20, "right": 4, "bottom": 4},
        )
        .mark_image(width=SIDE - 2, height=SIDE - 2, smooth=False)
        .encode(
            alt.X(
                "column:O",
                axis=alt.Axis(
                    orient="top", labelExpr=f"{headings}[datum.value]", labelAngle=0, **bare
                ),
            ),
            alt.Y(
                "row:N", sort=list(map(printable, rows)), axis=alt.Axis(labelLimit=LABEL, **bare)
            ),
            alt.Url("image:N"),
        )
    )
    return printed(laid_out(sheet), "")


def _address(image: Image.Image) -> str:
    """The image as a data URL, no larger than it is drawn."""
    shown = image.copy()
    shown.thumbnail((SIDE * DPI // 72, SIDE * DPI // 72))
    stream = BytesIO()
    shown.save(stream, format="png")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
