"""Models of a library user: checked, copied where they would be changed, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from statsmerging.choices import Accelerator
from statsmerging.errors import UserError, first_line, printable
from statsmerging.merging.errors import check_choice, choose_one
from statsmerging.merging.state_dicts import check_same_tensors
from statsmerging.progress import track
from statsmerging.scoring.scores import finite_scores
from statsmerging.zoo.network import (
    BATCH,
    forward,
    forward_weights,
    frozen_copy,
    inference_device,
)


@dataclass(frozen=True)
class Models:
    """Backbone, weights and heads; all are copies, or are only read.

    Attributes:
        pretrained: θ₀, floating point in float32.
        original: θ₀ as it was given.
    """

    backbone: nn.Module
    pretrained: dict[str, Tensor]
    original: Mapping[str, Tensor]
    experts: Mapping[str, Mapping[str, Tensor]]
    heads: dict[str, nn.Module]
    normalise: Callable[[Tensor], Tensor]
    device: torch.device
    progress: bool

    @classmethod
    def checked(
        cls,
        backbone: nn.Module,
        pretrained: Mapping[str, Tensor],
        experts: Mapping[str, Mapping[str, Tensor]],
        heads: Mapping[str, nn.Module],
        normalise: Callable[[Tensor], Tensor] | None,
        accelerator: Accelerator,
        progress: bool,
    ) -> Self:
        check_choice("accelerator", accelerator, Accelerator)
        if not experts:
            raise UserError("experts: there is none to merge")
        check_tasks("heads", heads, experts)
        check_same_tensors(
            backbone.state_dict(), pretrained, expected="backbone", found="pre-trained model"
        )
        return cls(
            frozen_copy(backbone).eval(),
            {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in pretrained.items()
            },
            pretrained,
            experts,
            {task: deepcopy(heads[task]).cpu().eval().requires_grad_(False) for task in experts},
            normalise or nn.Identity(),
            inference_device(accelerator),
            progress,
        )

    def scores(
        self, task: str, state: Mapping[str, Tensor], inputs: Tensor, description: str
    ) -> Tensor:
        """Scores of a task's head under some weights of the backbone, N × C, float32.

        Raises:
            UserError: backbone or head do not take what they are given.
            MergingError: NaN or infinite scores.
        """
        batches = inputs.split(BATCH)
        shown = track(batches, description, total=len(batches)) if self.progress else batches
        try:
            weights = forward_weights(self.backbone, state, self.device)
            features = forward(self.backbone, weights, shown, self.normalise, self.device)
            scores = finite_scores(self.heads[task], features, description)
        except (RuntimeError, TypeError, AttributeError) as error:
            shape = " × ".join(map(str, inputs.shape[1:]))
            raise UserError(
                f"{description}: backbone and head cannot score inputs of {shape} in "
                f"{inputs.dtype}: {first_line(error)}"
            ) from error
        if scores.dim() != 2:
            raise UserError(
                f"{description}: the head gives {tuple(scores.shape)}; class scores are N × C"
            )
        return scores


def check_tasks(what: str, given: Mapping[str, Any], experts: Mapping[str, Any]) -> None:
    """Raise ``UserError`` unless there is one entry for every expert, and no other."""
    for task in experts:
        if task not in given:
            raise UserError(
                f"{what}: none for task {printable(task)}; "
                f"{choose_one(task, map(str, given), 'there are those for')}"
            )
    unknown = [str(task) for task in given if task not in experts]
    if unknown:
        raise UserError(f"{what}: there is no expert for task {printable(', '.join(unknown))}")
