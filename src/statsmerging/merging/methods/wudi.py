"""WUDI-Merging: optimise the merged task matrix against its interference with each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import attention_and_mlps, merge_matrices


@dataclass(frozen=True)
class Wudi(DataFreeMethod):
    """WUDI-Merging (Cheng et al., *Whoever Started the Interference Should End It: Guiding
    Data-Free Model Merging via Task Vectors*, ICML 2025).

    A linear layer's task matrix lies in the span of the layer's inputs and stands for them. Adam
    starts at the sum of the task matrices and minimises, for each layer on its own,

        L(T) = Σ_k ‖(T − T_k) T_kᵀ‖² / ‖T_k‖²        (Frobenius norms)

    As in the released code, the matrices of attention and MLPs alone are merged (in a network whose
    names tell none, all 2-D tensors are), and every other tensor stays pre-trained. One expert's
    matrices come back, being the minimum Adam starts at.

    Args:
        steps: Adam steps for each layer; 300 in the paper.
        learning_rate: 1e-5 in the paper, for CLIP's task vectors: a step moves an entry by about
            this much, whatever the size of the task vectors. The paper does not tune it; other
            models' task vectors may be larger.
        all_tensors: merge every matrix, tensors of more than two dimensions as out × rest, and
            average the vectors; what the released code leaves pre-trained then moves too.
    """

    name = "wudi"
    title = "WUDI-Merging"
    tunable = Grid("learning_rate", (1e-5, 3e-5, 1e-4, 3e-4, 1e-3))

    steps: int = parameter(300, at_least=0)
    learning_rate: float = parameter(1e-5, above=0)
    all_tensors: bool = parameter(False)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"all_tensors": True} if copies == 1 else None

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        def reduced(matrices: Tensor, noise: Tensor) -> Tensor:
            del noise
            return reduce_interference(matrices, self.steps, self.learning_rate)

        part = bank if self.all_tensors else attention_and_mlps(bank, self.name)
        return merge_matrices(part, reduced, scale=1.0, flatten_convolutions=self.all_tensors)


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
