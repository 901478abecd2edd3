"""Fisher diagonals against the definition, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.fisher import Fisher
from statsmerging.scoring.evidence import fisher_diagonals
from statsmerging.zoo.experts import Zoo
from tests.scoring.conftest import TASKS, ZooOf, images_of_all, inputs
from tests.small_models import TinyBackbone, small_tower, small_vit

SIZE = 16


@pytest.fixture
def zoo(zoo_of: ZooOf) -> Zoo:
    return zoo_of(TinyBackbone(), SIZE)


def exact(zoo: Zoo, task: str, images: Tensor) -> dict[str, Tensor]:
    """Σ_y p(y | x) (∂ log p(y | x))², mean over images, by one backward pass for each pair."""
    network = TinyBackbone()
    network.load_state_dict(dict(zoo.experts[task].state))
    network.double().eval()
    head = zoo.experts[task].head
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for image in images:
        for label in range(4):
            network.zero_grad()
            scores = network(image[None]) @ head.weight.double().mT + head.bias.double()
            prediction = scores.softmax(dim=1)[0, label]
            prediction.log().backward()
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None
                total[name] += prediction.item() * parameter.grad.square() / len(images)
    return total


def test_exact_expectation(zoo: Zoo) -> None:
    images = images_of_all(6, SIZE)
    found = fisher_diagonals(zoo, images, labels_per_image=None)
    for task in TASKS:
        expected = exact(zoo, task, inputs(zoo, images[task]))
        assert found[task].keys() == expected.keys()
        for name, diagonal in expected.items():
            torch.testing.assert_close(
                found[task][name].double(), diagonal, rtol=1e-3, atol=1e-6 * float(diagonal.max())
            )


def test_drawn_labels_estimate_the_expectation(zoo: Zoo) -> None:
    images = {"svhn": images_of_all(3, SIZE)["svhn"]}
    expected = fisher_diagonals(zoo, images, labels_per_image=None)["svhn"]

    def error(draws: int) -> float:
        found = fisher_diagonals(zoo, images, labels_per_image=draws)["svhn"]
        return float(
            sum((found[n] - f).norm() for n, f in expected.items())
            / sum(f.norm() for f in expected.values())
        )

    # 1/√1200 of a relative deviation of about one.
    assert error(400) < 0.1
    assert error(400) < error(1)


def test_the_seed_decides_and_the_global_generator_does_not(zoo: Zoo) -> None:
    images = images_of_all(5, SIZE)
    torch.manual_seed(1)
    first = fisher_diagonals(zoo, images, seed=4)
    state = torch.manual_seed(2).get_state()
    second = fisher_diagonals(zoo, images, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    other = fisher_diagonals(zoo, images, seed=5)
    name = "projection.weight"
    for task in TASKS:
        assert torch.equal(first[task][name], second[task][name])
    assert any(not torch.equal(first[task][name], other[task][name]) for task in TASKS)


def test_a_cap_on_the_images(zoo: Zoo) -> None:
    images = images_of_all(9, SIZE)
    few = {task: split.sample(3) for task, split in images.items()}
    capped, expected = fisher_diagonals(zoo, images, images_per_task=3), fisher_diagonals(zoo, few)
    for task in TASKS:
        assert all(torch.equal(capped[task][name], f) for name, f in expected[task].items())


@pytest.mark.parametrize("make", [TinyBackbone, small_vit, small_tower])
def test_real_backbones_merge_and_stay_as_they_were(
    zoo_of: ZooOf, make: Callable[[], nn.Module]
) -> None:
    zoo = zoo_of(make(), SIZE)
    before = {name: tensor.clone() for name, tensor in zoo.network.module.state_dict().items()}
    found = fisher_diagonals(zoo, images_of_all(2, SIZE))
    states = {task: expert.state for task, expert in zoo.experts.items()}
    bank = TaskVectorBank.from_state_dicts(zoo.pretrained, states)
    merged = Fisher().merge(bank, found)
    assert all(found["mnist"][name].any() for name in bank.layers if name.endswith("weight"))
    for name in bank.layers:
        low = torch.stack([states[task][name] for task in TASKS]).amin(0) - 1e-5
        high = torch.stack([states[task][name] for task in TASKS]).amax(0) + 1e-5
        assert ((low <= merged[name]) & (merged[name] <= high)).all()
    assert all(
        torch.equal(before[name], now) for name, now in zoo.network.module.state_dict().items()
    )
    assert not any(t.requires_grad for expert in states.values() for t in expert.values())
