"""A zoo: one pre-trained backbone, its experts, and one frozen head per task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError, printable
from statsmerging.merging.bank import check_finite
from statsmerging.store.hashing import state_sha256
from statsmerging.zoo.formats.foreign import NORMALISES
from statsmerging.zoo.heads import Head, head_from
from statsmerging.zoo.inference import architecture_key
from statsmerging.zoo.settings import BackboneSettings
from statsmerging.zoo.weights import FileTensors, Weights, write_weights

_BACKBONE, _HEAD = "backbone.", "head."


@dataclass(frozen=True)
class Expert:
    """A model fine-tuned for one task: its backbone weights θ_k and its frozen head."""

    state: Weights
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
        settings: the backbone was made with; ``None`` if it was made without any.
    """

    backbone: nn.Module
    preprocess: Preprocess
    pretrained: Weights
    experts: Mapping[str, Expert]
    device: torch.device
    settings: BackboneSettings | None = None

    @cached_property
    def architecture(self) -> str:
        """Hash of what the backbone is, besides its weights."""
        return architecture_key(self.backbone, self.settings)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """``pretrained``, ``TASK/backbone``, ``TASK/head`` → sha256 of the weights."""
        hashes = {"pretrained": self.pretrained.sha256}
        for task, expert in self.experts.items():
            hashes[f"{task}/backbone"] = expert.state.sha256
            hashes[f"{task}/head"] = state_sha256(expert.head.state_dict())
        return hashes


def copy_state(backbone: nn.Module) -> Weights:
    """The module's state dict, independent of its further training."""
    return Weights({name: value.detach().clone() for name, value in backbone.state_dict().items()})


def write_expert(path: Path, expert: Expert) -> None:
    """One safetensors file with ``backbone.*`` and ``head.*``."""
    state = {f"{_BACKBONE}{name}": value for name, value in expert.state.items()}
    head = {f"{_HEAD}{name}": value for name, value in expert.head.state_dict().items()}
    write_weights(path, {**state, **head})


def write_zoo(folder: Path, zoo: Zoo) -> None:
    """``pretrained.safetensors`` and ``experts/TASK.safetensors``: what ``zoo=local`` reads."""
    write_weights(folder / "pretrained.safetensors", zoo.pretrained)
    for task, expert in zoo.experts.items():
        write_expert(folder / "experts" / f"{task}.safetensors", expert)


def holds_expert(path: Path) -> bool:
    """Whether a file was written by ``write_expert``, or in its layout."""
    if path.suffix != ".safetensors" or path.is_dir():
        return False
    names = FileTensors(path)
    return any(name.startswith(_BACKBONE) for name in names) and all(
        name.startswith((_BACKBONE, _HEAD)) for name in names
    )


def read_expert(path: Path) -> Expert:
    """Read what ``write_expert`` wrote; the backbone's tensors stay on disk until they are used.

    Raises:
        UserError: a file that cannot be read, or one without ``head.weight`` and ``head.bias``.
        MergingError: NaN or infinite weights (names the tensor).
    """
    head = read_expert_head(path)
    check_finite(FileTensors(path), found=printable(str(path)))
    return Expert(Weights(FileTensors(path, _BACKBONE)), head)


def read_expert_head(path: Path) -> Head:
    """The head alone of what ``write_expert`` wrote.

    Raises:
        UserError: a file that cannot be read, or one without ``head.weight`` and ``head.bias``.
    """
    head = FileTensors(path, _HEAD)
    if not {"weight", "bias"} <= set(head):
        raise UserError(
            f"{printable(str(path))}: an expert needs backbone.* and head.weight, head.bias"
        )
    return head_from(head, normalises=NORMALISES in head)
