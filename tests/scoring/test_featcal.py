"""FeatCal against weighted least squares on the inputs of every layer, in float64."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import task_arithmetic
from statsmerging.merging.methods.featcal import FeatCal, Moments, calibrated_matrix
from statsmerging.scoring.block_evidence import block_moments
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.weights import Weights
from tests.scoring.conftest import TASKS, ZooOf, images_of_all, inputs
from tests.small_models import TinyBackbone, small_tower, small_vit

SIZE, COUNT = 16, 40
RIDGE, ANCHOR, BLEND, OTHERS = 0.05, 2.0, 0.3, 0.01


def bank_of(zoo: Zoo, tasks: tuple[str, ...] = TASKS) -> TaskVectorBank:
    states = {task: zoo.experts[task].state for task in tasks}
    return TaskVectorBank.from_state_dicts(zoo.pretrained, states)


def calibrated(zoo: Zoo, tasks: tuple[str, ...] = TASKS, **parameters: float) -> dict[str, Tensor]:
    images = {task: split for task, split in images_of_all(COUNT, SIZE).items() if task in tasks}
    method = FeatCal(**parameters)  # type: ignore[arg-type]
    moments = block_moments(zoo, images, images_per_task=256, other_tokens=method.other_tokens)
    return method.merge(bank_of(zoo, tasks), moments)


def ridge_regression(design: list[Tensor], targets: list[Tensor], anchor: Tensor) -> Tensor:
    """Closest to all rows of the targets and, with √RIDGE times the identity, to the anchor."""
    root = RIDGE**0.5
    rows = torch.cat([*design, root * torch.eye(len(anchor)).double()])
    solution: Tensor = torch.linalg.lstsq(rows, torch.cat([*targets, root * anchor])).solution
    return solution


def caught(block: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    """Inputs of the layers of a block; of a normalisation, what its scale multiplies."""
    found: dict[str, Tensor] = {}

    def catch(name: str, module: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Tensor]) -> None:
            x = given[0]
            if isinstance(module, nn.LayerNorm):
                x = x - x.mean(dim=-1, keepdim=True)
                x = x / (x.square().mean(dim=-1, keepdim=True) + module.eps).sqrt()
            found[name] = x

        return hook

    handles = [
        module.register_forward_pre_hook(catch(name, module))
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | nn.LayerNorm)
    ]
    block(tokens)
    for handle in handles:
        handle.remove()
    return found


@torch.no_grad()
def reference(zoo: Zoo, seen: dict[str, Tensor]) -> nn.Module:
    """timm's ViT of two blocks: both streams of tokens go through the modules themselves."""

    def network(state: dict[str, Tensor]) -> nn.Module:
        copy = deepcopy(zoo.network.module)
        copy.load_state_dict(state)
        return copy.double().eval()

    start = network(dict(zoo.pretrained))
    experts = {task: network(dict(zoo.experts[task].state)) for task in TASKS}
    merged = deepcopy(start)
    for name, parameter in merged.named_parameters():
        for expert in experts.values():
            parameter.add_(expert.get_parameter(name) - start.get_parameter(name), alpha=0.3)

    def embedded(vit: nn.Module, images: Tensor) -> Tensor:
        return vit._pos_embed(vit.patch_embed(images))  # type: ignore[operator, no-any-return]

    students = {task: embedded(merged, images) for task, images in seen.items()}
    teachers = {task: embedded(experts[task], images) for task, images in seen.items()}
    for block in ("blocks.0", "blocks.1"):
        own = {task: caught(merged.get_submodule(block), students[task]) for task in TASKS}
        of_experts = {
            task: caught(experts[task].get_submodule(block), teachers[task]) for task in TASKS
        }
        for layer in own[TASKS[0]]:
            name = f"{block}.{layer}"
            weight, bias = (f"{name}.{part}" for part in ("weight", "bias"))
            anchor_w, anchor_b = (
                ANCHOR * merged.get_parameter(part) + (1 - ANCHOR) * start.get_parameter(part)
                for part in (weight, bias)
            )
            xs, targets, means, shares = [], [], [], []
            for task in TASKS:
                x, y = own[task][layer], of_experts[task][layer]
                tokens = torch.ones(x.shape[:-1]).double()
                if block == "blocks.1" and layer != "attn.qkv":
                    tokens[:, 1:] = OTHERS
                weights = (tokens / tokens.sum()).flatten()
                x, y = x.flatten(end_dim=-2), y.flatten(end_dim=-2)
                w, b = experts[task].get_parameter(weight), experts[task].get_parameter(bias)
                if w.dim() == 1:
                    # Input and 1, entry by entry: 2 × N × n.
                    both = torch.stack([x, torch.ones_like(x)])
                    xs.append(weights.sqrt().unsqueeze(1) * both)
                    targets.append(weights.sqrt().unsqueeze(1) * (w * x + b))
                    continue
                x_t = BLEND * y + (1 - BLEND) * x
                size = torch.linalg.matrix_norm(x.mT @ (weights.unsqueeze(1) * x))
                xs.append((weights / size).sqrt().unsqueeze(1) * x)
                targets.append((weights / size).sqrt().unsqueeze(1) * (x_t @ w.mT))
                means.append((weights @ x, weights @ (x_t @ w.mT) + b))
                shares.append(1 / size)
            if anchor_w.dim() == 1:
                for entry in range(len(anchor_w)):
                    design = [both[:, :, entry].mT for both in xs]
                    pair = ridge_regression(
                        design,
                        [target[:, entry : entry + 1] for target in targets],
                        torch.stack([anchor_w[entry], anchor_b[entry]]).unsqueeze(1),
                    )
                    merged.get_parameter(weight)[entry] = pair[0, 0]
                    merged.get_parameter(bias)[entry] = pair[1, 0]
                continue
            matrix = ridge_regression(xs, targets, anchor_w.mT).mT
            wanted = sum(
                share * (target - matrix @ mean)
                for share, (mean, target) in zip(shares, means, strict=True)
            )
            merged.get_parameter(weight).copy_(matrix)
            merged.get_parameter(bias).copy_((wanted + RIDGE * anchor_b) / (sum(shares) + RIDGE))
        students = {task: merged.get_submodule(block)(x) for task, x in students.items()}
        teachers = {task: experts[task].get_submodule(block)(x) for task, x in teachers.items()}
    return merged


def test_featcal(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    images = images_of_all(COUNT, SIZE)
    found = calibrated(zoo)
    expected = reference(zoo, {task: inputs(zoo, images[task]) for task in TASKS}).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=0, atol=2e-4, msg=name)
    plain = task_arithmetic(bank_of(zoo), scale=0.3)
    for name in ("norm1.weight", "norm2.bias", "attn.qkv.weight", "mlp.fc1.bias"):
        assert (found[f"blocks.1.{name}"] - plain[f"blocks.1.{name}"]).abs().max() > 1e-3
    for name in ("pos_embed", "patch_embed.proj.weight", "norm.weight"):
        assert torch.equal(found[name], plain[name])


@pytest.mark.parametrize("make", [small_vit, small_tower])
def test_one_expert_comes_back(zoo_of: ZooOf, make: Callable[[], nn.Module]) -> None:
    """Merged as itself and anchored there, it sees what it shall see."""
    zoo = zoo_of(make(), SIZE)
    expert = zoo.experts["svhn"].state
    for name, tensor in calibrated(zoo, ("svhn",), scale=1.0, anchor=1.0).items():
        torch.testing.assert_close(tensor, expert[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [small_vit, small_tower])
def test_blocks_come_closer_to_what_the_experts_blocks_give(
    zoo_of: ZooOf, make: Callable[[], nn.Module]
) -> None:
    """Outside the blocks, where nothing is calibrated, the experts are the pre-trained model."""
    torch.manual_seed(0)
    zoo = zoo_of(make(), SIZE)
    experts = {
        task: replace(
            expert,
            state=Weights(
                {
                    name: tensor if "blocks." in name else zoo.pretrained[name]
                    for name, tensor in expert.state.items()
                }
            ),
        )
        for task, expert in zoo.experts.items()
    }
    zoo = replace(zoo, experts=experts)
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

    found = distance(calibrated(zoo, anchor=1.0, ridge=1e-3))
    assert found < 0.9 * distance(task_arithmetic(bank_of(zoo), scale=0.3))


def test_order_of_experts_does_not_matter(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    found, shuffled = calibrated(zoo), calibrated(zoo, TASKS[::-1])
    for name, tensor in found.items():
        torch.testing.assert_close(shuffled[name], tensor, rtol=0, atol=1e-4)


def test_a_heavy_anchor_holds_the_weights(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    bank = bank_of(zoo)
    plain = task_arithmetic(bank, scale=0.3)
    for name, tensor in calibrated(zoo, ridge=1e7, anchor=1.0).items():
        torch.testing.assert_close(tensor, plain[name], rtol=0, atol=1e-4)


def test_a_layer_whose_inputs_are_all_zero_gets_its_anchor() -> None:
    matrices = torch.randn(2, 3, 4, dtype=torch.float64)
    none = Moments(*(torch.zeros(4).double(),) * 2, *(torch.zeros(4, 4).double(),) * 2)
    found = calibrated_matrix(matrices, [none] * 2, matrices[0], 0.05)
    torch.testing.assert_close(found, matrices[0])


def test_a_backbone_without_blocks_is_refused(zoo_of: ZooOf) -> None:
    with pytest.raises(MergingError, match="FeatCal merges block by block"):
        calibrated(zoo_of(TinyBackbone(), SIZE))
