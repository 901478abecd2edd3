"""Honest pickles are read as torch itself reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from statsmerging.zoo.formats.pickled import read_pickled
from tests.zoo.formats.genuine import FIXTURES
from tests.zoo.formats.hostile import Storage, archive, program, tensor

STATE_DICT = FIXTURES / "task_vectors_state_dict.pt"


def assert_same(found: Mapping[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_a_module_gives_its_state_dict() -> None:
    module = read_pickled(FIXTURES / "task_vectors_encoder.pt")
    expected = torch.load(STATE_DICT, weights_only=True)
    assert_same(module.tensors, expected)
    assert_same(read_pickled(STATE_DICT).tensors, expected)
    assert module.maker == "src.modeling.ImageEncoder"
    assert module.attributes["training"] is False


def test_buffers_that_are_not_saved_are_left_out(tmp_path: Path) -> None:
    module = torch.nn.BatchNorm1d(3)
    module.register_buffer("mask", torch.zeros(2), persistent=False)
    torch.save(module, tmp_path / "module.pt")
    assert_same(read_pickled(tmp_path / "module.pt").tensors, module.state_dict())


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8]
)
def test_types_strides_and_nesting(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.arange(24).to(dtype)
    state = {"transposed": values.view(4, 6).T, "sliced": values[3:9:2], "scalar": values[5]}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth")
    assert_same(read_pickled(tmp_path / "checkpoint.pth").tensors, state)


def test_two_names_of_one_tensor_share_no_memory(tmp_path: Path) -> None:
    storage = Storage("0", 4)
    halves = {"a": tensor(storage, (2,), (1,)), "b": tensor(storage, (2,), (1,))}
    path = archive(tmp_path / "model.pt", program(halves), {"0": bytes(16)})
    read = read_pickled(path).tensors
    read["a"][0] = 1
    assert read["b"].tolist() == [0, 0]
