"""Safetensors files: read tensor by tensor, in time that grows with their size alone."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from statsmerging.errors import UserError
from statsmerging.zoo import weights
from statsmerging.zoo.weights import FileTensors, read_weights, write_weights


def write(path: Path, header: Any, content: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + content)
    return path


def test_many_tensors_take_few_openings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each opening reads the names of all tensors: one for each tensor is quadratic."""
    path, opened = tmp_path / "many.safetensors", []

    def counted(*arguments: Any) -> Any:
        opened.append(arguments)
        return safe_open(*arguments)

    monkeypatch.setattr(weights, "safe_open", counted)
    save_file({f"t{index}": torch.zeros(0) for index in range(2000)}, path)
    found = read_weights(path)
    assert "t1999" in found
    assert "t2000" not in found
    assert len(found.sha256) == 64
    assert len(opened) == 1
    save_file({f"t{index}": torch.zeros(1 << 21) for index in range(8)}, path)  # 64 MiB
    assert all(float(tensor[0]) == 0 for tensor in FileTensors(path).values())
    assert 1 < len(opened) - 1 < 8


def test_an_open_file_is_sent_to_other_processes(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    sent = pickle.loads(pickle.dumps(FileTensors(tmp_path / "a.safetensors")))
    assert sent["a"].tolist() == [1, 1]


def entry(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_floating_point_becomes_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([0.5, -1.75, 96.0])
    save_file({"a": values.to(dtype)}, tmp_path / "a.safetensors")
    read = read_weights(tmp_path / "a.safetensors")["a"]
    assert read.dtype == torch.float32
    assert torch.equal(read, values)


TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
TWICE += b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'


@pytest.mark.parametrize(
    ("header", "content", "length", "message"),
    [
        (entry("F4", [2], 1), bytes(1), None, "which is not read"),
        (entry("F6_E2M3", [4], 3), bytes(3), None, "is not a whole safetensors file"),
        (entry("X\x1b[2J", [1], 4), bytes(4), None, "is not a whole safetensors file"),
        (entry("F32", [1] * 100_000, 4), bytes(4), None, "'a' has 100000 dimensions"),
        (entry("F32", [2**40, 2**40], 4), bytes(4), None, "is not a whole safetensors file"),
        (entry("F32", [-1], 4), bytes(4), None, "is not a whole safetensors file"),
        (entry("F32", [1], 4), bytes(4), 2**40, "is not a whole safetensors file"),
        (entry("F32", [1], 4), bytes(2), None, "is not a whole safetensors file"),
        (TWICE, bytes(8), None, "is not a whole safetensors file"),
        (b"[" * 100_000, b"", None, "is not a whole safetensors file"),
    ],
)
def test_headers_that_are_none_end_in_one_line(
    header: Any, content: bytes, length: int | None, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.safetensors", header, content, length)
    with pytest.raises(UserError) as refused:
        read_weights(path)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400 + len(str(path))


class Tied(nn.Module):
    """One matrix under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4, bias=False)
        self.decode = nn.Linear(3, 4, bias=False)
        self.decode.weight = self.embed.weight


def test_tied_tensors_are_read_and_written_under_both_names(tmp_path: Path) -> None:
    model = Tied()
    save_model(model, str(tmp_path / "tied.safetensors"))  # writes one of them, and names the other
    read = FileTensors(tmp_path / "tied.safetensors")
    assert set(read) == {"embed.weight", "decode.weight"}
    write_weights(tmp_path / "again.safetensors", read)
    write_weights(tmp_path / "state.safetensors", model.state_dict())
    for name in ("again", "state"):
        for tensor in load_file(tmp_path / f"{name}.safetensors").values():
            assert torch.equal(tensor, model.embed.weight)
