"""RegMean++ against a float64 reference that merges a network block by block."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.regmean import RegMean
from statsmerging.merging.methods.regmean_plus_plus import RegMeanPlusPlus
from statsmerging.scoring.block_evidence import block_grams
from statsmerging.scoring.evidence import gram_matrices
from statsmerging.zoo.experts import Zoo
from tests.scoring.conftest import TASKS, ZooOf, images_of_all, inputs
from tests.small_models import TinyBackbone, small_tower, small_vit

SIZE = 16
ALPHA = 0.7


def bank_of(zoo: Zoo, tasks: tuple[str, ...] = TASKS) -> TaskVectorBank:
    states = {task: zoo.experts[task].state for task in tasks}
    return TaskVectorBank.from_state_dicts(zoo.pretrained, states)


@torch.no_grad()
def reference(zoo: Zoo, seen: dict[str, Tensor]) -> nn.Module:
    """timm's ViT of two blocks, merged by propagating tokens through the modules themselves."""
    experts = {}
    for task in TASKS:
        network = deepcopy(zoo.network.module)
        network.load_state_dict(dict(zoo.experts[task].state))
        experts[task] = network.double().eval()
    merged = deepcopy(experts[TASKS[0]])
    for name, parameter in merged.named_parameters():
        parameter.copy_(torch.stack([e.get_parameter(name) for e in experts.values()]).mean(0))
    vit = merged
    tokens = {task: vit._pos_embed(vit.patch_embed(images)) for task, images in seen.items()}  # type: ignore[operator]
    for block in ("blocks.0", "blocks.1"):
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            left, right = torch.zeros(1, 1).double(), torch.zeros(1, 1).double()
            for task, expert in experts.items():
                caught: list[Tensor] = []
                module = expert.get_submodule(f"{block}.{layer}")
                hook = module.register_forward_hook(lambda _, x, __, c=caught: c.append(x[0]))
                expert.get_submodule(block)(tokens[task])
                hook.remove()
                rows = caught[0].flatten(end_dim=-2)
                gram = rows.mT @ rows / len(rows)
                gram = ALPHA * gram + (1 - ALPHA) * gram.diagonal().diag()
                left = left + expert.get_parameter(f"{block}.{layer}.weight") @ gram
                right = right + gram
            merged.get_parameter(f"{block}.{layer}.weight").copy_(left @ torch.linalg.inv(right))
        tokens = {task: merged.get_submodule(block)(x) for task, x in tokens.items()}
    return merged


def test_regmean_plus_plus(zoo_of: ZooOf) -> None:
    zoo = zoo_of(small_vit(), SIZE)
    images = images_of_all(40, SIZE)
    found = RegMeanPlusPlus(off_diagonal=ALPHA).merge(
        bank_of(zoo), block_grams(zoo, images, images_per_task=256)
    )
    expected = reference(zoo, {task: inputs(zoo, images[task]) for task in TASKS})
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=0, atol=1e-4)
    # The second block sees other features than in RegMean, where they come from the experts.
    plain = RegMean(ALPHA).merge(bank_of(zoo), gram_matrices(zoo, images))
    assert (found["blocks.1.mlp.fc1.weight"] - plain["blocks.1.mlp.fc1.weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("make", [small_vit, small_tower])
def test_one_expert_comes_back(zoo_of: ZooOf, make: Callable[[], nn.Module]) -> None:
    zoo = zoo_of(make(), SIZE)
    bank = bank_of(zoo, ("svhn",))
    found = RegMeanPlusPlus().merge(
        bank, block_grams(zoo, images_of_all(5, SIZE), images_per_task=5)
    )
    for name, tensor in zoo.experts["svhn"].state.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-4)


def test_blocks_come_in_the_order_of_the_network(zoo_of: ZooOf) -> None:
    names = ["conv1.weight", *(f"layer1.{i}.conv1.weight" for i in range(12)), "layer2.0.x"]
    state = {name: torch.ones(1) for name in names}
    bank = TaskVectorBank.from_state_dicts(state, {"svhn": {n: 2 * t for n, t in state.items()}})
    assert merged_blocks(bank, "RegMean++") == [*(f"layer1.{i}." for i in range(12)), "layer2.0."]
    with pytest.raises(MergingError, match="no known blocks"):
        merged_blocks(bank_of(zoo_of(TinyBackbone(), SIZE)), "RegMean++")
