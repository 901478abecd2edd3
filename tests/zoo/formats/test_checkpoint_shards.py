"""Weights in several files with an index: read like one file, and led nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from statsmerging.errors import UserError
from statsmerging.zoo.formats.checkpoints import files_of, read_file

STATE = {f"layer.{number}": torch.full((2,), float(number)) for number in range(4)}


def write_shards(folder: Path, suffix: str = "safetensors") -> Path:
    """Two shards with an index; returns the index."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places = {}
    for part in (0, 1):
        file = f"{stem}-0000{part + 1}-of-00002.{suffix}"
        own = {name: STATE[name] for name in list(STATE)[2 * part : 2 * part + 2]}
        save_file(own, folder / file) if suffix == "safetensors" else torch.save(own, folder / file)
        places.update(dict.fromkeys(own, file))
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": places}))
    return index


def same(found: Mapping[str, Tensor]) -> bool:
    return list(found) == list(STATE) and all(torch.equal(found[n], STATE[n]) for n in STATE)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_like_one_file(suffix: str, tmp_path: Path) -> None:
    index = write_shards(tmp_path, suffix)
    assert same(read_file(index).tensors)
    assert same(read_file(tmp_path).tensors)
    assert files_of(tmp_path) == files_of(index)
    assert len(files_of(index)) == 3


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    assert same(read_file(tmp_path).tensors)
    assert files_of(tmp_path) == [tmp_path / "model.safetensors"]


def outside(folder: Path) -> str:
    save_file({"layer.0": torch.zeros(2)}, folder.parent / "outside.safetensors")
    return "../outside.safetensors"


def absolute(folder: Path) -> str:
    return str((folder / outside(folder)).resolve())


def linked(folder: Path) -> str:
    (folder / "linked.safetensors").symlink_to(folder / outside(folder))
    return "linked.safetensors"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (outside, "is no name of a file beside it"),
        (absolute, "is no name of a file beside it"),
        (linked, "is a link; links are not followed"),
        (lambda _: "model.safetensors.index.json", "is no name of a file beside it"),
        (lambda _: "absent.safetensors", "No such file"),
        (lambda _: 3, "is no name of a file beside it"),
        (lambda _: "model-00002-of-00002.safetensors", "holds no 'layer.0'"),
        (lambda _: "model-\x1b[2J.safetensors", r"'model-\x1b[2J.safetensors' is no name"),
    ],
)
def test_names_in_an_index_lead_nowhere(place: Any, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "expert"
    folder.mkdir()
    index = write_shards(folder)
    content = json.loads(index.read_text())
    content["weight_map"]["layer.0"] = place(folder)
    index.write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        read_file(folder)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', "{", "[" * 100_000])
def test_an_index_that_is_none(content: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(UserError, match=r"is no index of shards|is no whole JSON"):
        read_file(index)
