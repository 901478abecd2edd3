"""WUDI-Merging: optimise the merged task matrix against its interference with each task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from statsmerging.merging.methods.base import DataFreeMethod
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.methods.parameters import Grid, parameter
from statsmerging.merging.task_vectors import TaskVectorBank


@dataclass(frozen=True)
class Wudi(DataFreeMethod):
    """WUDI-Merging (Cheng et al., *Whoever Started the Interference Should End It: Guiding
    Data-Free Model Merging via Task Vectors*, ICML 2025).

    A linear layer's task matrix lies in the span of the layer's inputs and stands for them. Adam
    starts at the sum of the task matrices and minimises, for each layer on its own,

        L(T) = Σ_k ‖(T − T_k) T_kᵀ‖² / ‖T_k‖²        (Frobenius norms)

    Vectors are averaged. One expert comes back, being the minimum Adam starts at.

    Args:
        steps: Adam steps for each layer; 300 in the paper.
        learning_rate: 1e-5 in the paper, for CLIP's task vectors: a step moves an entry by about
            this much, whatever the size of the task vectors. The paper does not tune it; other
            models' task vectors may be larger.
    """

    name = "wudi"
    title = "WUDI-Merging"
    tunable = Grid("learning_rate", (1e-5, 3e-5, 1e-4, 3e-4, 1e-3))

    steps: int = parameter(300, at_least=0)
    learning_rate: float = parameter(1e-5, above=0)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return merge_matrices(
            bank,
            lambda matrices: reduce_interference(matrices, self.steps, self.learning_rate),
            scale=1.0,
        )


def reduce_interference(matrices: Tensor, steps: int, learning_rate: float) -> Tensor:
    """Task matrices K × m × n → merged update m × n.

    With T = Σ_k T_k + D the gradient is 2 (D G + R), where G and R do not depend on D: a step is
    one m × n × n product, however many the tasks.
    """
    total = matrices.sum(dim=0)
    curvature = total.new_zeros(total.shape[1], total.shape[1])
    residual = torch.zeros_like(total)
    for matrix in matrices:
        energy = matrix.square().sum()
        if energy > 0:
            curvature += matrix.mT @ matrix / energy
            residual += (total - matrix) @ matrix.mT @ matrix / energy

    change = nn.Parameter(torch.zeros_like(total))
    optimizer = torch.optim.Adam([change], lr=learning_rate)
    for _ in range(steps):
        change.grad = 2 * (change @ curvature + residual)
        optimizer.step()
    return total + change.detach()
