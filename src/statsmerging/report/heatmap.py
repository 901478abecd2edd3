"""Merging coefficients as pictures: layers down, tasks across."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from statsmerging.report.figures.style import drawn_text

#: Of more layers only every second, third, … is named.
NAMED_LAYERS = 40


def coefficient_heatmaps(path: Path) -> dict[str, Image.Image]:
    """Method → heatmap of its coefficients, from ``coefficients.parquet``; none without the file.

    Colours are centred at 0, so that a negative coefficient shows.
    """
    if not path.exists():
        return {}
    methods = pd.read_parquet(path).groupby("method", sort=False)
    return {str(method): _heatmap(str(method), frame) for method, frame in methods}


def _heatmap(method: str, frame: pd.DataFrame) -> Image.Image:
    layers, tasks = list(frame["layer"].unique()), list(frame["task"].unique())
    values = frame["coefficient"].to_numpy().reshape(len(layers), len(tasks))
    height = 0.6 + 0.2 * min(len(layers), NAMED_LAYERS)
    figure = Figure(figsize=(2 + 0.4 * len(tasks), height))
    axes = figure.add_subplot(title=drawn_text(method))
    limit = max(abs(values).max(), 1e-6)
    picture = axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(tasks)), [*map(drawn_text, tasks)], rotation=90)
    named = range(0, len(layers), -(-len(layers) // NAMED_LAYERS))
    axes.set_yticks(named, [drawn_text(layers[row]) for row in named])
    figure.colorbar(picture, label="coefficient")
    stream = BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight")
    return Image.open(stream).convert("RGB")
