"""What training puts around a model comes off, and a moving average is taken by one rule."""

from __future__ import annotations

import argparse
import logging
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from statsmerging.errors import UserError
from statsmerging.zoo.formats.checkpoints import around, wrapper_of
from statsmerging.zoo.formats.foreign import read_foreign
from statsmerging.zoo.formats.pickled import read_pickled
from tests.zoo.formats.genuine import FIXTURES

KNOWN = ("conv.weight", "norm.weight")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["conv.weight", "norm.weight"], ""),
        (["module.conv.weight", "module.norm.weight"], "module."),
        (["model._orig_mod.module.conv.weight"], "model._orig_mod.module."),
        (["model.conv.weight", "loss.weight", "model.head.weight"], "model."),
        (["model.conv.weight", "model_ema.conv.weight"], "model_ema."),
        (["model_ema.module.conv.weight", "model.conv.weight"], "model_ema.module."),
        # An average of the parameters alone is less than the weights with their buffers.
        (["model.conv.weight", "model.norm.weight", "ema.conv.weight"], "model."),
        (["module.other.weight"], ""),
        ([], ""),
    ],
)
def test_names_are_found_behind_their_wrappers(names: list[str], expected: str) -> None:
    assert wrapper_of(names, KNOWN) == expected


def test_prefixes_around_a_module() -> None:
    assert around("model.backbone.") == ["model.backbone.", "model.", ""]
    assert around("") == [""]


def weights(value: float = 1.0) -> dict[str, Tensor]:
    return {"conv.weight": torch.full((2, 2), value), "n": torch.tensor(3)}


def module(value: float) -> nn.Module:
    linear = nn.Linear(2, 2)
    nn.init.constant_(linear.weight, value)
    return linear


FILES: dict[str, Any] = {
    "state_dict": {"state_dict": weights()},
    "model_state_dict": {"model_state_dict": weights(), "loss": 0.5},
    "model": {"model": OrderedDict(weights()), "args": argparse.Namespace(lr=1.0, name="x")},
    "module": {"module": weights()},
    "net": {"net": weights(), "acc": 93.1, "epoch": 12},
    "nested": {"model": {"state_dict": weights()}, "best": True},
    "beside numbers": {**weights(), "epoch": 3, "name": "run", "best": None},
    "Lightning": {
        "state_dict": weights(),
        "pytorch-lightning_version": "2.5.0",
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "", "path": Path()}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{}]}],
        "lr_schedulers": [defaultdict(int, {"a": 1})],
        "hyper_parameters": {"arguments": argparse.Namespace(depth=2), "size": torch.Size([2])},
    },
    "an average": {"model": weights(0.0), "model_ema": weights()},
    "timm's average": {"state_dict": weights(0.0), "state_dict_ema": weights(), "arch": "resnet"},
    "no average": {"model": weights(), "model_ema": None, "ema": {"decay": 0.9}},
}


@pytest.mark.parametrize("kind", FILES)
def test_the_weights_of_a_file_of_a_training(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    torch.save(FILES[kind], path)
    with caplog.at_level(logging.WARNING):
        found = read_pickled(path).tensors
    assert set(found) == {"conv.weight", "n"}
    assert torch.equal(found["conv.weight"], torch.ones(2, 2))
    assert ("its moving average, " in caplog.text) == ("average" in kind and kind != "no average")


def test_a_module_in_a_file_of_a_training(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "model": module(3.0), "ema": module(2.0)}, tmp_path / "last.pt")
    read = read_pickled(tmp_path / "last.pt")
    assert read.maker == "torch.nn.modules.linear.Linear"
    assert torch.equal(read.tensors["weight"], torch.full((2, 2), 2.0))


def test_entries_without_end_are_refused(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pt")
    with pytest.raises(UserError, match="'model' is no tensor"):
        read_pickled(tmp_path / "endless.pt")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bool])
def test_young_types(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.save({"a": values.to(dtype).T, "b": values}, tmp_path / "a.pt")
    read = read_pickled(tmp_path / "a.pt").tensors
    assert read["a"].dtype == (torch.bool if dtype == torch.bool else torch.float32)
    assert torch.equal(read["a"].float(), values.T)


def test_tied_weights_may_be_larger_than_the_file(tmp_path: Path) -> None:
    shared = torch.randn(1000)
    torch.save({"embed": shared, "decode": shared, "again": shared}, tmp_path / "tied.pt")
    assert (tmp_path / "tied.pt").stat().st_size < 3 * shared.nbytes
    read = read_pickled(tmp_path / "tied.pt").tensors
    assert all(torch.equal(tensor, shared) for tensor in read.values())


@pytest.mark.parametrize("wrapper", ["module.", "model.", "_orig_mod.", "module.model.", "net."])
def test_clip_behind_wrappers(wrapper: str, tmp_path: Path) -> None:
    plain = read_pickled(FIXTURES / "task_vectors_state_dict.pt").tensors
    expected = read_foreign(FIXTURES / "task_vectors_state_dict.pt")
    wrapped = {f"{wrapper}{name}": tensor for name, tensor in plain.items()}
    content = {"state_dict": {**wrapped, "loss.scale": torch.ones(1)}, "optimizer": {}, "epoch": 1}
    torch.save(content, tmp_path / "epoch_1.pt")
    found = read_foreign(tmp_path / "epoch_1.pt")
    assert set(found.tensors) == set(expected.tensors)
    assert all(torch.equal(found.tensors[name], t) for name, t in expected.tensors.items())
    assert "loss.scale" in found.dropped
    assert len(found.dropped) == len(expected.dropped) + 1
