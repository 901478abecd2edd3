"""A zoo of small networks, and unlabeled images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import Network
from statsmerging.zoo.weights import Weights
from tests.small_models import random_experts

HALF = (0.5, 0.5, 0.5)
TASKS = ("mnist", "svhn", "cars")

ZooOf = Callable[[nn.Module, int], Zoo]


@pytest.fixture
def zoo_of() -> ZooOf:
    """A zoo of random experts of any backbone, given its input size; heads have four classes."""

    def make(backbone: nn.Module, size: int) -> Zoo:
        start = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        with torch.no_grad():
            dimension = backbone.eval()(torch.zeros(1, 3, size, size)).shape[1]
        generator = torch.Generator().manual_seed(2)
        experts = {
            task: Expert(
                Weights(state),
                Head(torch.randn(4, dimension, generator=generator), torch.zeros(4)),
            )
            for task, state in random_experts(start, TASKS).items()
        }
        network = Network(backbone, Preprocess(size, HALF, HALF), torch.device("cpu"))
        return Zoo(network, Weights(start), experts)

    return make


def unlabeled(count: int, size: int, seed: int = 3) -> ImageSplit:
    """Random images whose labels would fail if they were read."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    digests = torch.zeros(count, 16, dtype=torch.uint8)
    return ImageSplit(pixels, torch.full((count,), -1), digests, f"{seed}")


def images_of_all(count: int, size: int) -> dict[str, ImageSplit]:
    """Different images for each task."""
    return {task: unlabeled(count, size, seed) for seed, task in enumerate(TASKS)}


def inputs(zoo: Zoo, split: ImageSplit) -> Tensor:
    """What the backbone sees, float64."""
    return zoo.preprocess.normalise(split.images[:]).double()
