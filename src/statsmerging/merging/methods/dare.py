"""DARE: drop entries of the task vectors at random, rescale the rest, then merge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, parameter
from statsmerging.merging.methods.layers import Rows, add_to_pretrained
from statsmerging.merging.methods.task_arithmetic import TASK_ARITHMETIC_SCALES
from statsmerging.merging.methods.ties import TIES_SCALES, add_elected


@dataclass(frozen=True)
class DareTaskArithmetic(DataFreeMethod):
    """Task arithmetic after DARE (Yu et al., *Language Models are Super Mario: Absorbing
    Abilities from Homologous Models as a Free Lunch*, ICML 2024).

    Every entry of every task vector is dropped with probability p; those that stay are divided
    by 1 − p, so that the expected task vector is unchanged. What is dropped depends on the seed,
    the task's name and the layer's name, not on the order of experts, the device or torch's
    global generator.

    Args:
        drop_rate: p; 0.2 is the rate of the authors' merging example. They report that single
            models stand 0.9 where fine-tuning moved the weights little.
        scale: λ, as in task arithmetic.
        seed: source of the random choice.
    """

    name = "dare_task_arithmetic"
    title = "DARE + task arithmetic"
    tunable = TASK_ARITHMETIC_SCALES

    drop_rate: float = parameter(0.2, at_least=0, below=1)
    scale: float = parameter(0.3, at_least=0)
    seed: int = parameter(0, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"drop_rate": 0.0, "scale": 1 / copies}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        rows = thinned_rows(bank, self.drop_rate, self.seed)
        return add_to_pretrained(bank, lambda layer: self.scale * rows(layer).sum(dim=0))


@dataclass(frozen=True)
class DareTies(DataFreeMethod):
    """TIES-Merging after DARE; see ``DareTaskArithmetic`` and ``Ties``.

    Args:
        drop_rate: p, the share of entries DARE drops.
        density: share of entries TIES keeps, the dropped ones counted as zeros and, as in ``Ties``,
            frozen tensors not at all.
        scale: λ, as in TIES.
        seed: source of the random choice.
    """

    name = "dare_ties"
    title = "DARE + TIES"
    tunable = TIES_SCALES

    drop_rate: float = parameter(0.2, at_least=0, below=1)
    density: float = parameter(0.2, above=0, at_most=1)
    scale: float = parameter(1.0, at_least=0)
    seed: int = parameter(0, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"drop_rate": 0.0, "density": 1.0}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        rows = thinned_rows(bank, self.drop_rate, self.seed)
        return add_elected(bank, rows, self.density, self.scale)


def thinned_rows(bank: TaskVectorBank, drop_rate: float, seed: int) -> Rows:
    """Task vectors without the dropped entries; a layer is the same at every call."""

    def rows(layer: str) -> Tensor:
        vectors = bank.vectors[layer].float()
        stays = torch.stack(
            [
                _stays(vectors.shape[1], drop_rate, f"{seed} {task} {layer}").to(vectors.device)
                for task in bank.tasks
            ]
        )
        return torch.where(stays, vectors / (1 - drop_rate), 0)

    return rows


def _stays(entries: int, drop_rate: float, key: str) -> Tensor:
    # Drawn on the CPU: generators of different devices give different numbers.
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(entries, generator=generator) >= drop_rate
