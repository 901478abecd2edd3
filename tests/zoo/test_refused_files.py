"""Files that are no weights are called what they are, in one line."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from statsmerging.errors import UserError
from statsmerging.zoo.formats.checkpoints import read_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 354355\n"
KINDS = {
    "pointer": (POINTER, "is a Git LFS pointer, not the weights themselves: `git lfs pull`"),
    "page": (
        b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>",
        "is an HTML page, not weights",
    ),
    "bare page": (b"<html lang=en>", "is an HTML page, not weights"),
    "error": (b'{"error":\n "Repository not found"}', "is a JSON text, not weights"),
    "words": ("Zugriff verweigert – ohne Anmeldung".encode(), "is a text, not weights; it begins"),
    "nothing": (b"", "is empty: the copy or the download was cut, get it again"),
    "quantised": (b"GGUF\x03\x00\x00\x00", "is a GGUF file, whose weights are quantised"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_is_that_holds_no_weights(kind: str, suffix: str, tmp_path: Path) -> None:
    content, message = KINDS[kind]
    path = tmp_path / f"an expert é{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_file(path)
    assert f"an expert é{suffix} {message}" in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_file_under_the_name_of_the_other_format(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(2)}
    torch.save(state, tmp_path / "model.safetensors")
    save_file(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"is an archive as torch\.save writes it: name it \.pt"):
        read_file(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"is a safetensors file: name it \.safetensors"):
        read_file(tmp_path / "model.pt")


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "expert.safetensors"
    folder.mkdir()
    with pytest.raises(UserError, match="is a folder without weights: none of adapter_config"):
        read_file(folder)
    with pytest.raises(UserError, match=r"model\.bin: no such file"):
        read_file(tmp_path / "model.bin")


@pytest.mark.parametrize("first", [b"{", b"<", b"v", b"P"])
def test_the_length_of_a_header_is_no_text(first: bytes, tmp_path: Path) -> None:
    """The first byte of safetensors is any: the lowest of the header's length."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    length = first[0] + 256
    content = struct.pack("<Q", length) + header.ljust(length) + struct.pack("<f", 2.5)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert read_file(tmp_path / "model.safetensors").tensors["a"].tolist() == [2.5]


@pytest.mark.parametrize("name", ["two words", "größe", "模型", "a%20b", "[x]"])
def test_names_of_files_are_anything(name: str, tmp_path: Path) -> None:
    state = {name: torch.ones(3)}
    save_file(state, tmp_path / f"{name}.safetensors")
    torch.save(state, tmp_path / f"{name}.pt")
    for suffix in (".safetensors", ".pt"):
        assert read_file(tmp_path / f"{name}{suffix}").tensors[name].tolist() == [1, 1, 1]
