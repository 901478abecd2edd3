"""Representation Surgery: a small network per task that undoes the merged features' bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import Method, parameter


@dataclass(frozen=True)
class RepresentationSurgery(Method):
    """Representation Surgery (Yang et al., *Representation Surgery for Multi-Task Model Merging*,
    ICML 2024), on top of any merged model.

    Task k's head sees z' = z − W_up ReLU(W_down z) in place of the merged model's features z.
    The two matrices minimise the L1 distance between z' and the expert's features on unlabeled
    images of the task. The merged model itself stays as it is, so its features are computed once.

    Args:
        rank: rows of W_down; 16 in the paper.
        steps: Adam steps for each task; 1000 as in the released code (500 rounds of two batches).
        learning_rate: 1e-3 in the paper.
        batch_size: images in a step; 16 in the released code.
        seed: of W_down and of the order of the images.
    """

    name = "surgery"
    title = "Representation Surgery"
    needs = "unlabeled images"
    returns = "adapters"

    rank: int = parameter(16, at_least=1)
    steps: int = parameter(1000, at_least=0)
    learning_rate: float = parameter(1e-3, above=0)
    batch_size: int = parameter(16, at_least=1, at_most=4096)
    seed: int = parameter(0, at_least=0)

    def fit(
        self, merged: Mapping[str, Tensor], experts: Mapping[str, Tensor]
    ) -> dict[str, SurgeryModule]:
        """One module per task.

        Args:
            merged: task → features of the merged model on the task's images, N × D.
            experts: task → features of the task's expert on the same images, N × D.

        Raises:
            MergingError: other tasks or other shapes on one side than on the other.
        """
        if merged.keys() != experts.keys():
            raise MergingError(
                f"surgery needs features of the same tasks from both models, "
                f"got {', '.join(merged)} and {', '.join(experts)}"
            )
        return {
            task: fit_surgery(
                features,
                experts[task],
                rank=self.rank,
                steps=self.steps,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                seed=self.seed,
            )
            for task, features in merged.items()
        }


class SurgeryModule(nn.Module):
    """z − W_up ReLU(W_down z); the identity until it is trained, because W_up starts at zero.

    Args:
        dimension: D, width of the features.
        rank: rows of W_down.
        generator: source of W_down, drawn like the weights of ``nn.Linear``.
    """

    def __init__(self, dimension: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = dimension**-0.5
        down = torch.empty(rank, dimension).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(dimension, rank))

    def forward(self, features: Tensor) -> Tensor:
        """N × D → N × D."""
        return features - torch.relu(features @ self.down.mT) @ self.up.mT


def fit_surgery(
    merged: Tensor,
    expert: Tensor,
    *,
    rank: int,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> SurgeryModule:
    """Train one task's module on features; see ``RepresentationSurgery``.

    Args:
        merged: features of the merged model, N × D.
        expert: features of the expert on the same images, N × D.

    Raises:
        MergingError: features of different shapes.
    """
    if merged.shape != expert.shape:
        raise MergingError(
            f"merged features have shape {tuple(merged.shape)}, the expert's {tuple(expert.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    module = SurgeryModule(merged.shape[1], rank, generator).to(merged)
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    for _ in range(steps):
        rows = torch.randint(len(merged), (batch_size,), generator=generator).to(merged.device)
        optimizer.zero_grad()
        nn.functional.l1_loss(module(merged[rows]), expert[rows]).backward()
        optimizer.step()
    return module.requires_grad_(False)
