"""Tensors that are written part by part are those that safetensors reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from statsmerging.store.tensor_file import TensorFile

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(7, 3, 5, 5), dtype=np.uint8)
LABELS = RNG.integers(-1, 9, size=7)


def test_parts_in_any_order_give_the_file_of_the_library(tmp_path: Path) -> None:
    with (tmp_path / "parts").open("wb") as stream:
        shapes = {"images": ("uint8", IMAGES.shape), "labels": ("int64", LABELS.shape)}
        file = TensorFile(stream, shapes)
        file.write("images", 4, IMAGES[4:])
        file.write("labels", 0, LABELS)
        file.write("images", 0, np.asfortranarray(IMAGES[:4]))
    tensors = {"images": torch.from_numpy(IMAGES), "labels": torch.from_numpy(LABELS)}
    save_file(tensors, tmp_path / "whole")
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    read = load_file(tmp_path / "parts")
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("first", "rows"),
    [(5, IMAGES[:3]), (0, IMAGES[:, :2]), (0, IMAGES.astype(np.int64))],
    ids=["beyond", "shape", "type"],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, first: int, rows: np.ndarray) -> None:
    with (tmp_path / "parts").open("wb") as stream:
        file = TensorFile(stream, {"images": ("uint8", IMAGES.shape)})
        with pytest.raises(ValueError, match=r"^images: rows"):
            file.write("images", first, rows)
