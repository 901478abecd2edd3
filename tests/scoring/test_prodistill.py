"""ProDistill against a float64 reference that carries both streams from block to block."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import task_arithmetic
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.prodistill import ProDistill
from statsmerging.scoring.block_evidence import block_features
from statsmerging.zoo.experts import Zoo
from tests.scoring.conftest import TASKS, ZooOf, images_of_all, inputs
from tests.small_models import small_tower, small_vit

SIZE = 16
COUNT = 6
EPOCHS, RATE = 4, 0.02


def bank_of(zoo: Zoo, tasks: tuple[str, ...] = TASKS) -> TaskVectorBank:
    states = {task: zoo.experts[task].state for task in tasks}
    return TaskVectorBank.from_state_dicts(zoo.pretrained, states)


def distilled(zoo: Zoo, tasks: tuple[str, ...] = TASKS, **parameters: float) -> dict[str, Tensor]:
    images = {task: split for task, split in images_of_all(COUNT, SIZE).items() if task in tasks}
    method = ProDistill(**{"epochs": EPOCHS, "learning_rate": RATE, **parameters})  # type: ignore[arg-type]
    features = block_features(zoo, images, images_per_task=method.images_per_task)
    return method.fit(zoo.network.frozen(), bank_of(zoo, tasks), features)


def adam(start: Tensor, gradients: Callable[[Tensor], Tensor], steps: int) -> Tensor:
    """Kingma and Ba's update, written out, in one vector of all coefficients."""
    point, first, second = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        gradient = gradients(point)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9**step), second / (1 - 0.999**step)
        point = point - RATE * mean / (square.sqrt() + 1e-8)
    return point


def reference(zoo: Zoo, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's ViT of two blocks; all images are one batch."""
    start = {name: tensor.double() for name, tensor in zoo.pretrained.items()}
    experts = {
        task: {name: tensor.double() for name, tensor in zoo.experts[task].state.items()}
        for task in TASKS
    }
    vectors = {
        name: torch.stack([e[name] - start[name] for e in experts.values()]) for name in start
    }
    merged = {name: start[name] + 0.3 * vectors[name].sum(dim=0) for name in start}
    network: nn.Module = deepcopy(zoo.network.module).double().eval()

    def tokens(state: dict[str, Tensor], images: Tensor) -> Tensor:
        network.load_state_dict(state)
        return network._pos_embed(network.patch_embed(images))  # type: ignore[operator, no-any-return]

    with torch.no_grad():
        student = torch.cat([tokens(merged, images) for images in seen.values()])
        teachers = {task: tokens(experts[task], images) for task, images in seen.items()}
    for block in ("blocks.0.", "blocks.1."):
        module = network.get_submodule(block.removesuffix("."))
        names = [name for name in start if name.startswith(block)]

        def run(weights: dict[str, Tensor], features: Tensor) -> Tensor:
            own = {n.removeprefix(block): w for n, w in weights.items() if n.startswith(block)}  # noqa: B023
            return functional_call(module, own, (features,))  # type: ignore[no-any-return] # noqa: B023

        with torch.no_grad():
            teachers = {task: run(experts[task], features) for task, features in teachers.items()}
        target = torch.cat(list(teachers.values()))
        sizes = [vectors[name].numel() for name in names]

        def weights(flat: Tensor) -> dict[str, Tensor]:
            parts = zip(names, flat.split(sizes), strict=True)  # noqa: B023
            return {
                n: start[n] + (part.view_as(vectors[n]) * vectors[n]).sum(0) for n, part in parts
            }

        def gradients(flat: Tensor) -> Tensor:
            point = flat.requires_grad_()
            loss = (run(weights(point), student) - target).square().sum()  # noqa: B023
            return torch.autograd.grad(loss, point)[0]

        found = adam(torch.full((sum(sizes),), 0.3).double(), gradients, EPOCHS).detach()
        merged |= weights(found)
        with torch.no_grad():
            student = run(merged, student)
    return merged


def test_prodistill(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    found = distilled(zoo)
    images = images_of_all(COUNT, SIZE)
    expected = reference(zoo, {task: inputs(zoo, images[task]) for task in TASKS})
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        both = torch.stack([found[name].double(), tensor])
        if name.endswith("qkv.bias"):
            # Attention does not see the bias of its keys: its gradient is rounding, scaled by Adam.
            both.view(2, 3, -1)[:, 1] = 0
        torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-4, msg=name)
    plain = task_arithmetic(bank_of(zoo), scale=0.3)
    assert (found["blocks.1.mlp.fc1.weight"] - plain["blocks.1.mlp.fc1.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("make", [small_vit, small_tower])
def test_one_expert_comes_back(zoo_of: ZooOf, make: Callable[[], nn.Module]) -> None:
    """Its blocks give what they shall give: there is nothing to learn."""
    zoo = zoo_of(make(), SIZE)
    expert = zoo.experts["svhn"].state
    # Rounding alone has a gradient, which Adam scales to its learning rate.
    for name, tensor in distilled(zoo, ("svhn",), scale=1.0, learning_rate=1e-6).items():
        torch.testing.assert_close(tensor, expert[name], rtol=0, atol=1e-5)


def test_without_steps_it_is_task_arithmetic(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    plain = task_arithmetic(bank_of(zoo), scale=0.4)
    for name, tensor in distilled(zoo, scale=0.4, epochs=0).items():
        torch.testing.assert_close(tensor, plain[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [small_vit, small_tower])
def test_it_comes_closer_to_the_experts_features(
    zoo_of: ZooOf, make: Callable[[], nn.Module]
) -> None:
    zoo = zoo_of(make(), SIZE)
    images = images_of_all(COUNT, SIZE)

    def distance(state: dict[str, Tensor]) -> float:
        total = 0.0
        for task in TASKS:
            merged, expert = (
                zoo.network.features(weights, images[task].images, description="")
                for weights in (state, zoo.experts[task].state)
            )
            total += float((merged - expert).square().sum())
        return total

    found = distilled(zoo, epochs=30, batch_size=5)
    assert distance(found) < 0.8 * distance(task_arithmetic(bank_of(zoo), scale=0.3))


def test_the_order_of_the_images_is_the_seeds(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    runs = [
        distilled(zoo, batch_size=4, seed=seed)["blocks.0.mlp.fc1.weight"] for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_a_backbone_without_blocks_is_refused(bank: TaskVectorBank) -> None:
    with pytest.raises(MergingError, match="ProDistill merges block by block"):
        merged_blocks(bank, ProDistill.title)


class Masked(nn.Module):
    """A backbone whose block takes a mask besides its features."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Bilinear(SIZE, 3, 4)])

    def forward(self, images: Tensor) -> Tensor:
        rows = images.mean(dim=2)
        result: Tensor = self.blocks[0](rows[:, 0], rows.mean(dim=2))
        return result


def test_a_block_that_sees_more_than_features_is_refused(zoo_of: ZooOf) -> None:
    zoo = zoo_of(Masked(), SIZE)
    with pytest.raises(MergingError, match=r"blocks\.0\.: the block is no function"):
        distilled(zoo)
