"""The same weights in another network: nothing that the cache holds of one is taken for the other.

Two vision transformers with two and with four attention heads take the same weights, and print
themselves alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from statsmerging.data.images import ImageSplit
from statsmerging.learning.joint import joint_weights
from statsmerging.scoring.scores import class_scores
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import state_sha256
from statsmerging.zoo.backbones import create_backbone, preprocess_of
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import Network
from statsmerging.zoo.settings import BackboneSettings
from statsmerging.zoo.weights import Weights
from tests.zoo.test_backbones import settings
from tests.zoo.test_experts import make_zoo, training

BackboneOf = Callable[[int], BackboneSettings]


@pytest.fixture
def with_heads(small_weights: Path) -> BackboneOf:
    """The small vision transformer, given its number of attention heads."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}
    return lambda heads: settings(
        weights=str(small_weights), arguments={**sizes, "num_heads": heads}
    )


def zoo_of(backbone: BackboneSettings) -> Zoo:
    """θ₀ as the expert of one task, under a head for three classes."""
    preprocess = preprocess_of(backbone)
    network = Network(create_backbone(backbone), preprocess, torch.device("cpu"), backbone)
    start = network.initial
    head = Head(torch.randn(3, 24, generator=torch.Generator().manual_seed(0)), torch.zeros(3))
    experts = {"task": Expert(start, head)}
    return Zoo(network, start, experts)


def noise() -> ImageSplit:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (12, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ImageSplit(pixels, torch.arange(12) % 3, torch.zeros(12, 16, dtype=torch.uint8), "noise")


def scores_hash(backbone: BackboneSettings, cache: Path) -> str:
    zoo = zoo_of(backbone)
    scores = class_scores(zoo, zoo.pretrained, "task", noise(), Cache(cache), description="")
    return state_sha256({"scores": scores})


def joint_hash(backbone: BackboneSettings, cache: Path) -> str:
    zoo, images = zoo_of(backbone), {"task": noise()}
    weights = joint_weights(zoo, images, training(2), cache=Cache(cache), accelerator="cpu")
    return weights.sha256


@pytest.mark.parametrize("made", [scores_hash, joint_hash])
def test_scores_and_joint_weights_are_those_of_the_network(
    with_heads: BackboneOf, tmp_path: Path, made: Callable[[BackboneSettings, Path], str]
) -> None:
    first = made(with_heads(2), tmp_path / "shared")
    other = made(with_heads(4), tmp_path / "shared")
    assert other == made(with_heads(4), tmp_path / "own") != first


def test_experts_and_heads_in_half_precision_are_scored_in_float32(with_heads: BackboneOf) -> None:
    zoo = zoo_of(with_heads(2))
    head = zoo.experts["task"].head
    half = {name: tensor.half() for name, tensor in zoo.pretrained.items()}
    rounded = {name: tensor.float() for name, tensor in half.items()}
    scores = [
        class_scores(
            replace(zoo, experts={"task": Expert(Weights(state), Head(weight, head.bias.half()))}),
            Weights(state),
            "task",
            noise(),
            None,
            description="",
        )
        for state, weight in [(half, head.weight.half()), (rounded, head.weight.half().float())]
    ]
    assert torch.equal(*scores)


def test_probes_and_experts_are_those_of_the_network(
    with_heads: BackboneOf, suite_root: Path, tmp_path: Path
) -> None:
    def made(heads: int, cache: str) -> list[str]:
        experts = make_zoo(suite_root, with_heads(heads), tmp_path / cache)
        expert = experts["size"]
        return [state_sha256(expert.head.state_dict()), expert.state.sha256]

    first, other = made(2, "shared"), made(4, "shared")
    assert other == made(4, "own")
    assert not set(first) & set(other)
