"""Heatmaps of coefficients: one per method, signs told by colour."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from statsmerging.report.heatmap import NAMED_LAYERS, coefficient_heatmaps
from statsmerging.runs.layer_tables import write_coefficients

#: Red, green and blue of the ends of the colour scale.
POSITIVE, NEGATIVE = (103, 0, 31), (5, 48, 97)


def test_every_learned_method_has_a_heatmap(tmp_path: Path) -> None:
    path = tmp_path / "coefficients.parquet"
    layers = tuple(f"blocks.{layer}.weight" for layer in range(3 * NAMED_LAYERS))
    learned = {"layer_wise": torch.ones(len(layers), 2), "task_wise": torch.tensor([1.0, -1.0])}
    write_coefficients(path, learned, layers, ("mnist", "a_task_of_a_long_name"))
    pictures = coefficient_heatmaps(path)
    assert list(pictures) == ["layer_wise", "task_wise"]
    colours = {name: dict(_colours(picture)) for name, picture in pictures.items()}
    # The colour bar holds every colour, but of each only a line.
    assert colours["layer_wise"][POSITIVE] > 20 * colours["layer_wise"][NEGATIVE]
    assert colours["task_wise"][POSITIVE] == pytest.approx(colours["task_wise"][NEGATIVE], rel=0.1)


def _colours(picture: Image.Image) -> list[tuple[tuple[int, ...], int]]:
    """Colours with the number of their pixels."""
    pixels = torch.tensor(list(picture.tobytes())).reshape(-1, 3)
    colours, counts = pixels.unique(dim=0, return_counts=True)
    return [(tuple(colour), n) for colour, n in zip(colours.tolist(), counts.tolist(), strict=True)]


def test_without_coefficients_there_is_none(tmp_path: Path) -> None:
    assert coefficient_heatmaps(tmp_path / "coefficients.parquet") == {}
