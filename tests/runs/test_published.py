"""The published numbers as we hold them, and the cells that are off."""

from __future__ import annotations

from statistics import fmean

import pytest

from statsmerging.runs.published import deviations, published_rows


def test_families_are_kept_apart() -> None:
    ours, theirs = (published_rows(zoo, "vit_b_32") for zoo in ("fusion_bench", "task_vectors"))
    assert ours["individual"]["sun397"] == 75.0
    assert theirs["individual"]["sun397"] == 79.2
    assert published_rows("finetuned", "vit_b_32") == {}
    assert published_rows("fusion_bench", "vit_l_14")["individual"] == {"average": 94.3}


#: Their sources print averages that do not follow from their cells.
DISAGREEING = ("individual", "Traditional MTL", "WEMoE 1-layer")


@pytest.mark.parametrize("zoo", ["fusion_bench", "task_vectors"])
def test_averages_agree_with_their_cells(zoo: str) -> None:
    """To 0.15 points of rounding, but for rows whose published average is another number."""
    for method, row in published_rows(zoo, "vit_b_32").items():
        cells = [value for task, value in row.items() if task != "average"]
        if abs(fmean(cells) - row["average"]) > 0.15:
            assert method in DISAGREEING, (method, fmean(cells), row["average"])


def test_cells_more_than_a_point_off_are_named() -> None:
    published = published_rows("fusion_bench", "vit_b_32")
    ours = {"individual": {"mnist": 0.996, "dtd": 0.785, "svhn": 0.965, "unheard_of": 0.1}}
    assert [str(cell) for cell in deviations(ours, published)] == [
        "individual on dtd: 78.5, published 79.7 (-1.2)"
    ]
