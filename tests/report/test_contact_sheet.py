"""The contact sheet: every image in its row and column."""

from __future__ import annotations

import numpy as np
from PIL import Image

from statsmerging.report.contact_sheet import contact_sheet


def test_every_image_is_in_its_place() -> None:
    colours = {"warm": ["red", "orange"], "cold": ["blue", "cyan"]}
    rows = {
        label: [Image.new("RGB", (4 + 3 * place, 5), name) for place, name in enumerate(names)]
        for label, names in colours.items()
    }
    figure = contact_sheet(rows, ["first", "second"])
    shown = [np.asarray(ax.images[0].get_array()) for ax in figure.axes]
    given = [np.asarray(image) for images in rows.values() for image in images]
    assert all(np.array_equal(a, b) for a, b in zip(shown, given, strict=True))
    assert [ax.get_title() for ax in figure.axes] == ["first", "second", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["warm", "", "cold", ""]
