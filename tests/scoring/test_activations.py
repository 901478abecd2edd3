"""Gram matrices against inputs that are computed by hand in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.regmean import RegMean
from statsmerging.scoring.evidence import gram_matrices
from tests.scoring.conftest import TASKS, ZooOf, images_of_all, inputs
from tests.small_models import TinyBackbone, small_tower, small_vit

SIZE = 16


class Tower(nn.Module):
    """Two patches, their self-attention, and a grouped convolution that nothing can regress."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, kernel_size=(SIZE, SIZE // 2), stride=(SIZE, SIZE // 2))
        self.grouped = nn.Conv2d(6, 6, kernel_size=1, groups=2)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def tokens(self, images: Tensor) -> Tensor:
        maps: Tensor = self.grouped(self.patches(images))
        return maps.flatten(2).mT

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.tokens(images)
        attended: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return attended.mean(dim=1)


def double(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(state)
    return module.double().eval()


def second_moment(rows: Tensor) -> Tensor:
    rows = rows.reshape(-1, rows.shape[-1])
    return rows.mT @ rows / len(rows)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_patches_and_linear_inputs(zoo_of: ZooOf) -> None:
    zoo = zoo_of(TinyBackbone(), 8)
    # More than one batch, and the last one is not full.
    images = images_of_all(40, 8)
    found = gram_matrices(zoo, images)
    assert found.keys() == set(TASKS)
    for task in TASKS:
        expert = double(TinyBackbone(), dict(zoo.experts[task].state))
        assert isinstance(expert, TinyBackbone)
        seen = inputs(zoo, images[task])
        patches = torch.stack(
            [seen[:, :, i : i + 3, j : j + 3].flatten(1) for i in range(6) for j in range(6)]
        )
        hidden = torch.relu(expert.normalisation(expert.convolution(seen))).mean(dim=(2, 3))
        assert found[task].keys() == {
            "convolution.weight",
            "normalisation.weight",
            "projection.weight",
        }
        maps = expert.convolution(seen)
        norm = expert.normalisation
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scaled = maps.movedim(1, -1) - norm.running_mean
        scaled = scaled / torch.sqrt(norm.running_var + norm.eps)
        assert_close(found[task]["normalisation.weight"], scaled.square().mean(dim=(0, 1, 2)))
        assert_close(found[task]["convolution.weight"], second_moment(patches))
        assert_close(found[task]["projection.weight"], second_moment(hidden))


@torch.no_grad()
def test_both_projections_of_attention(zoo_of: ZooOf) -> None:
    zoo = zoo_of(Tower(), SIZE)
    images = images_of_all(10, SIZE)
    found = gram_matrices(zoo, images)["svhn"]
    expert = double(Tower(), dict(zoo.experts["svhn"].state))
    assert isinstance(expert, Tower)
    tokens = expert.tokens(inputs(zoo, images["svhn"]))
    layer = expert.attention
    projected = tokens @ layer.in_proj_weight.mT + layer.in_proj_bias
    heads = [part.unflatten(-1, (2, 3)).transpose(1, 2) for part in projected.chunk(3, dim=-1)]
    query, key, value = heads
    attended = (query @ key.mT / 3**0.5).softmax(dim=-1) @ value
    assert found.keys() == {
        "patches.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    }
    assert_close(found["attention.in_proj_weight"], second_moment(tokens))
    assert_close(
        found["attention.out_proj.weight"], second_moment(attended.transpose(1, 2).flatten(2))
    )


@torch.no_grad()
@pytest.mark.parametrize("make", [small_vit, small_tower])
def test_what_comes_out_of_a_layer_follows_from_what_goes_in(
    zoo_of: ZooOf, make: Callable[[], nn.Module]
) -> None:
    """W G Wᵀ is the second moment of the layer's output without its bias, in real backbones."""
    zoo = zoo_of(make(), SIZE)
    images = images_of_all(6, SIZE)
    found = gram_matrices(zoo, images)["cars"]
    state = zoo.experts["cars"].state
    expert = double(zoo.network.module, dict(state))
    outputs: dict[str, Tensor] = {}
    for name, module in expert.named_modules():
        part = "out_proj." if isinstance(module, nn.MultiheadAttention) else ""
        if f"{name}.{part}weight" in found:
            module.register_forward_hook(
                lambda _, __, y, key=f"{name}.{part}": outputs.update(
                    {key: y[0] if isinstance(y, tuple) else y}
                )
            )
    expert(inputs(zoo, images["cars"]))
    matrices = {name: gram for name, gram in found.items() if gram.dim() == 2}
    # Patch embedding, and for each of two blocks attention (in, out) and MLP (in, out).
    assert len(matrices) == 1 + 2 * 4
    # Two normalisations in each block, and those before and after.
    norms = [module for module in expert.modules() if isinstance(module, nn.LayerNorm)]
    assert len(found) == len(matrices) + len(norms) >= len(matrices) + 5
    assert len(outputs) >= 1 + 2 * 3
    for key, output in outputs.items():
        weight = state[f"{key}weight"].double()
        matrix = weight.flatten(1) if weight.dim() > 1 else weight
        rows = output.flatten(2).mT if output.dim() == 4 else output
        if f"{key}bias" in state:
            rows = rows - state[f"{key}bias"].double()
        gram = found[f"{key}weight"].double()
        if gram.dim() == 1:
            squares = rows.square().flatten(end_dim=-2).mean(dim=0)
            assert_close(gram * weight.square(), squares)
        else:
            assert_close(matrix @ gram @ matrix.mT, second_moment(rows))


def test_a_cap_on_the_images(zoo_of: ZooOf) -> None:
    zoo = zoo_of(TinyBackbone(), 8)
    images = images_of_all(30, 8)
    few = {task: split.sample(7) for task, split in images.items()}
    capped, expected = gram_matrices(zoo, images, images_per_task=7), gram_matrices(zoo, few)
    for task in TASKS:
        for name, gram in expected[task].items():
            assert torch.equal(capped[task][name], gram)


@pytest.mark.parametrize("make", [TinyBackbone, small_vit, small_tower])
def test_regmean_accepts_them_and_the_backbone_stays_as_it_was(
    zoo_of: ZooOf, make: Callable[[], nn.Module]
) -> None:
    zoo = zoo_of(make(), SIZE)
    before = {name: tensor.clone() for name, tensor in zoo.network.module.state_dict().items()}
    found = gram_matrices(zoo, images_of_all(5, SIZE))
    states = {task: expert.state for task, expert in zoo.experts.items()}
    RegMean().merge(TaskVectorBank.from_state_dicts(zoo.pretrained, states), found)
    assert all(
        torch.equal(before[name], now) for name, now in zoo.network.module.state_dict().items()
    )
    assert not any(module._forward_pre_hooks for module in zoo.network.module.modules())
