"""The figures in docs/ are those that their script draws, from the numbers that README shows."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import figures
import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(figures.drawings()))
def test_a_figure_is_as_the_script_draws_it(name: str) -> None:
    drawing = figures.drawings()[name]
    assert (ROOT / "docs" / "figures" / name).read_text() == drawing, (
        "python docs/site/figures.py draws it anew"
    )
    assert ET.fromstring(drawing).attrib["aria-label"]


def test_the_demo_figure_has_every_row_of_the_table() -> None:
    table = (
        "| method | needs | average | normalised |\n| --- | --- | ---: | ---: |\n"
        "| Pre-trained |  | 70.5 | 80.0 |\n| Individual |  | 88.0 | 100.0 |\n"
        "| TIES | – | <ins>71.3 ± 0.2</ins> | 81.0 |\n| StatsMerging | images | **75.0** | 85.0 |\n"
    )
    says = ET.fromstring(figures.demo(table)).attrib["aria-label"]
    assert "Pre-trained 70.5, Individual 88, TIES 71.3, StatsMerging 75." in says
