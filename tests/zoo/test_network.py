"""The network of a zoo is run, trained in copies and merged, and stays as it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.func import functional_call

from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.learning.joint import joint_weights
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.merged_model import MergedModel
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import Network
from tests.small_models import TinyBackbone, random_experts
from tests.zoo.test_experts import training

PREPROCESS = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CPU = torch.device("cpu")


def addresses(module: nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}


def merged(network: Network) -> MergedModel:
    experts = random_experts(dict(network.initial), ("a", "b"))
    return MergedModel(network.frozen(), TaskVectorBank.from_state_dicts(network.initial, experts))


def test_merging_changes_nothing_of_it() -> None:
    network = Network(TinyBackbone(), PREPROCESS, CPU)
    before, values = addresses(network.module), {n: t.clone() for n, t in network.initial.items()}
    student = merged(network)
    assert not any(parameter.requires_grad for parameter in student.parameters())
    assert all(parameter.requires_grad for parameter in network.module.parameters())
    assert addresses(network.module) == before
    assert all(torch.equal(network.initial[name], value) for name, value in values.items())


def test_a_frozen_copy_shares_the_memory_and_a_fresh_one_does_not() -> None:
    network = Network(TinyBackbone(), PREPROCESS, CPU)
    own = addresses(network.module)
    assert addresses(network.frozen()) == own
    fresh = network.fresh(network.initial)
    assert not set(addresses(fresh).values()) & set(own.values())
    assert all(parameter.requires_grad for parameter in fresh.parameters())


def test_joint_training_after_merging_is_joint_training(tmp_path: Path) -> None:
    network = Network(TinyBackbone(), PREPROCESS, CPU)
    head = Head(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(3))
    zoo = Zoo(network, network.initial, {"task": Expert(network.initial, head)})
    pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    splits = {"task": ImageSplit(pixels, torch.arange(16) % 3, torch.zeros(16, 16), "key")}

    def joint(cache: str) -> str:
        weights = joint_weights(
            zoo, splits, training(steps=2), cache=Cache(tmp_path / cache), accelerator="cpu"
        )
        return weights.sha256

    first = joint("before")
    merged(network)
    assert joint("after") == first != network.initial.sha256


SWIN = {"embed_dim": 24, "depths": (1, 1), "num_heads": (1, 1), "window_size": 4}


@pytest.mark.parametrize(
    ("name", "sizes"), [("test_vit", {}), ("swin_tiny_patch4_window7_224", SWIN)]
)
def test_all_tensors_of_a_forward_pass_are_on_the_device(name: str, sizes: dict[str, Any]) -> None:
    """Swin has tables of positions that are no part of its state dict."""
    module = timm.create_model(name, num_classes=0, img_size=64, **sizes)
    network = Network(module, PREPROCESS, torch.device("meta"))
    weights = network.weights(network.initial)
    assert {tensor.device.type for tensor in weights.values()} == {"meta"}
    features = functional_call(module, weights, (torch.zeros(2, 3, 64, 64, device="meta"),))
    assert features.device.type == "meta"
    assert len(features) == 2
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}
