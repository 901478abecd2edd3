"""A zoo: one pre-trained backbone, its experts, and one frozen head per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from statsmerging.data.preprocess import Preprocess
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import state_sha256
from statsmerging.zoo.checkpoints import read_weights, write_weights
from statsmerging.zoo.heads import Head

_BACKBONE, _HEAD = "backbone.", "head."


@dataclass(frozen=True)
class Expert:
    """A model fine-tuned for one task: its backbone weights θ_k and its frozen head."""

    state: dict[str, Tensor]
    head: Head


@dataclass(frozen=True)
class Zoo:
    """What is merged.

    Attributes:
        backbone: the common architecture; its own weights are nobody's to rely on.
        preprocess: the preprocessing of the checkpoint.
        pretrained: θ₀ by tensor name.
        experts: one expert per task, of seen and unseen tasks.
        device: where forward passes and task vectors belong.
    """

    backbone: nn.Module
    preprocess: Preprocess
    pretrained: dict[str, Tensor]
    experts: Mapping[str, Expert]
    device: torch.device

    @cached_property
    def hashes(self) -> dict[str, str]:
        """``pretrained``, ``TASK/backbone``, ``TASK/head`` → sha256 of the weights."""
        hashes = {"pretrained": state_sha256(self.pretrained)}
        for task, expert in self.experts.items():
            hashes[f"{task}/backbone"] = state_sha256(expert.state)
            hashes[f"{task}/head"] = state_sha256(expert.head.state_dict())
        return hashes


def copy_state(backbone: nn.Module) -> dict[str, Tensor]:
    """The module's state dict, independent of its further training."""
    return {name: value.detach().clone() for name, value in backbone.state_dict().items()}


def write_expert(path: Path, expert: Expert) -> None:
    """One safetensors file with ``backbone.*`` and ``head.*``."""
    state = {f"{_BACKBONE}{name}": value for name, value in expert.state.items()}
    head = {f"{_HEAD}{name}": value for name, value in expert.head.state_dict().items()}
    write_weights(path, {**state, **head})


def read_expert(path: Path) -> Expert:
    """Read what ``write_expert`` wrote.

    Raises:
        UserError: a file that cannot be read, or one without ``head.weight`` and ``head.bias``.
    """
    state = read_weights(path)
    head = _with_prefix(state, _HEAD)
    if set(head) != {"weight", "bias"}:
        raise UserError(f"{path}: an expert needs backbone.* and head.weight, head.bias")
    return Expert(_with_prefix(state, _BACKBONE), Head(head["weight"], head["bias"]))


def _with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }
