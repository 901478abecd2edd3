"""The learner of the published code, which is not the one of the paper.

One vector of statistics per layer, over the task vectors of all experts at once, goes through a
3-layer MLP of the layer's own to K coefficients that a softmax makes sum to 1. It cannot tell the
experts apart by its input, and has thousands of times the parameters of a table of coefficients.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from statsmerging.merging.errors import MergingError
from statsmerging.merging.statistics import LayerStatistics, top_singular_values
from statsmerging.merging.task_vectors import TaskVectorBank

#: Singular values above this count as rank in the published code, whatever the layer's size.
RANK_THRESHOLD = 1e-3


class ReleasedCodeLearner(nn.Module):
    """Coefficients L × K from stacked statistics, as the published code makes them.

    Args:
        bank: the task vectors.
        hidden: width of both hidden layers.
        generator: source of the initial weights; torch's global one if ``None``.
    """

    kind = "released_code"
    statistics: Tensor

    def __init__(
        self, bank: TaskVectorBank, hidden: int = 256, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("statistics", stacked_statistics(bank).float(), persistent=False)
        layers, features = self.statistics.shape
        widths = (features, hidden, hidden, len(bank.tasks))
        sizes = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(layers, *size) for size in sizes)
        self.biases = nn.ParameterList(torch.empty(layers, 1, size[1]) for size in sizes)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = math.sqrt(6 / (weight.shape[1] + weight.shape[2]))  # Xavier's, layer by layer
            nn.init.uniform_(weight, -bound, bound, generator=generator)
            nn.init.zeros_(bias)

    def forward(self) -> Tensor:
        """The coefficients λ, L × K; those of a layer sum to 1."""
        hidden = self.statistics.unsqueeze(1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = torch.relu(hidden @ weight + bias)
        return torch.softmax(hidden @ self.weights[-1] + self.biases[-1], dim=-1).squeeze(1)

    def predict(self, statistics: LayerStatistics) -> Tensor:
        """Not possible: its input is one for all experts.

        Raises:
            MergingError: always.
        """
        raise MergingError("released_code: its statistics do not belong to single experts")


@torch.no_grad()
def stacked_statistics(bank: TaskVectorBank) -> Tensor:
    """Six statistics of the K × n matrix of each layer's task vectors: L × 6, float64.

    Mean, unbiased deviation and variance, norm, largest singular value, and the number of singular
    values above ``RANK_THRESHOLD``.
    """
    rows = []
    for _, vectors in bank.layer_vectors():
        matrix = vectors.double()
        variance = matrix.var(correction=min(1, matrix.numel() - 1))
        singular_values = top_singular_values(matrix.unsqueeze(0), len(matrix)).squeeze(0)
        rows.append(
            torch.stack(
                [
                    matrix.mean(),
                    variance.sqrt(),
                    variance,
                    matrix.norm(),
                    singular_values[0],
                    (singular_values > RANK_THRESHOLD).sum().double(),
                ]
            )
        )
    return torch.stack(rows).cpu()
