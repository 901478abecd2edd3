"""LoRA fine-tuning: experts whose task matrices have the rank asked for, and nothing else moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import SuiteImages
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.learning.finetuning import finetuned_zoo
from statsmerging.learning.lora import check_rank, low_rank_updates, matrices_of_blocks
from statsmerging.merging.singular_vectors import noise_levels
from statsmerging.merging.state_dicts import matrix_shape
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.settings import FinetunedZooSettings, OwnHeadsSettings
from tests.zoo.test_backbones import settings
from tests.zoo.test_experts import HALF, training

SMALL: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
}


def vit() -> nn.Module:
    backbone: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL)
    return backbone


def make_zoo(suite_root: Path, weights: Path, cache: Path, rank: int | None) -> Zoo:
    suite = folder_suite(suite_root, None, [], cache=cache / "datasets")
    return finetuned_zoo(
        settings(weights=str(weights), arguments={**SMALL, "depth": 1}),
        FinetunedZooSettings(
            kind="finetuned",
            root=None,
            seed=0,
            pretraining=training(),
            finetuning=training(),
            lora_rank=rank,
        ),
        OwnHeadsSettings(kind="own"),
        SuiteImages(suite, Preprocess(32, HALF, HALF), Cache(cache)),
        cache=Cache(cache),
        accelerator="cpu",
    )


@pytest.mark.parametrize("rank", [1, 3])
def test_task_matrices_have_the_rank_and_all_else_is_pretrained(
    suite_root: Path, small_weights: Path, tmp_path: Path, rank: int
) -> None:
    zoo = make_zoo(suite_root, small_weights, tmp_path, rank)
    matrices = matrices_of_blocks(zoo.network.module)
    assert len(matrices) == 4  # qkv, proj, fc1, fc2
    for expert in zoo.experts.values():
        assert expert.state.keys() == zoo.pretrained.keys()
        for name, start in zoo.pretrained.items():
            change = expert.state[name] - start
            if name not in matrices:
                assert not change.any(), name
                continue
            rounding = float(torch.finfo(torch.float32).eps)
            (noise,) = noise_levels(start, change[None], rounding, torch.float32)
            assert int((torch.linalg.svdvals(change) > noise).sum()) == rank, name


def test_experts_of_other_ranks_are_others_and_begin_apart(
    suite_root: Path, small_weights: Path, tmp_path: Path
) -> None:
    zoos = {rank: make_zoo(suite_root, small_weights, tmp_path, rank) for rank in (None, 1, 2)}
    hashes = {zoo.experts["parity"].state.sha256 for zoo in zoos.values()}
    assert len(hashes) == 3
    name = "blocks.0.mlp.fc1.weight"
    rows = [
        torch.linalg.svd(expert.state[name] - zoos[1].pretrained[name]).Vh[0]
        for expert in zoos[1].experts.values()
    ]
    assert abs(float(rows[0] @ rows[1])) < 0.9  # a common start would leave them nearly parallel


def test_a_network_is_the_same_at_the_start_and_afterwards() -> None:
    backbone = vit().eval()
    start = {name: value.clone() for name, value in backbone.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    expected = backbone(images)
    with low_rank_updates(backbone, 2, seed=0):
        assert torch.equal(backbone(images), expected)
        trained = [value.shape for value in backbone.parameters() if value.requires_grad]
        assert trained[:2] == [(2, 24), (72, 2)]  # A and B of the first block's qkv
        assert len(trained) == 2 * 2 * 4
    assert backbone.state_dict().keys() == start.keys()
    assert all(torch.equal(value, start[name]) for name, value in backbone.state_dict().items())


def test_kernels_of_convolutions_are_matrices() -> None:
    backbone = timm.create_model("resnet10t", num_classes=0)
    kernel = backbone.get_parameter("layer1.0.conv1.weight")
    start = kernel.detach().clone()
    with low_rank_updates(backbone, 2, seed=0):
        for name, value in backbone.named_parameters():
            if name.endswith(".up"):
                nn.init.ones_(value)
    change = backbone.get_parameter("layer1.0.conv1.weight").detach() - start
    assert torch.linalg.matrix_rank(change.view(matrix_shape(start)), rtol=1e-4) == 1  # equal rows
    assert "conv1.0.weight" not in matrices_of_blocks(backbone)


@pytest.mark.parametrize(
    ("backbone", "rank", "message"),
    [
        (vit(), 25, r"^zoo\.lora_rank=25: choose at most 24, the smallest side"),
        (nn.Sequential(nn.Linear(4, 4)), 1, r"^zoo\.lora_rank=1: this backbone has no blocks"),
    ],
)
def test_a_rank_that_cannot_be_ends_in_one_line(
    backbone: nn.Module, rank: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_rank(backbone, rank)
