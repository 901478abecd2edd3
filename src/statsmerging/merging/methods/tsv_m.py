"""TSV-M: the leading singular vectors of every task, made orthogonal to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.singular_vectors import leading_triples, orthogonalised


@dataclass(frozen=True)
class TsvM(DataFreeMethod):
    """TSV-Merge (Gargiulo et al., *Task Singular Vectors: Reducing Task Interference in Model
    Merging*, CVPR 2025).

    Each m × n task matrix keeps its leading min(m, n) / K singular triples (rounded down, at
    least one). The left singular vectors of all tasks side by side, and the right ones, are
    replaced by the nearest orthonormal sets, which removes the interference; the singular values
    stay. Directions that rounding alone may have made are left out. All but 2-D tensors are
    averaged. One expert at ``scale=1`` gives that expert, to rounding.

    Args:
        scale: λ on the merged update; 1 in the paper.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest; the released code averages them.
    """

    name = "tsv_m"
    title = "TSV-M"
    tunable = Grid("scale", (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6))

    scale: float = parameter(1.0, at_least=0)
    flatten_convolutions: bool = parameter(False)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {} if copies == 1 else None

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return merge_matrices(
            bank,
            merge_singular_vectors,
            self.scale,
            flatten_convolutions=self.flatten_convolutions,
        )


def merge_singular_vectors(matrices: Tensor, noise: Tensor) -> Tensor:
    """Task matrices K × m × n and their noise levels K → merged update m × n."""
    rank = max(1, min(matrices.shape[1:]) // len(matrices))
    left, values, right = leading_triples(matrices, rank, noise)
    lefts = orthogonalised(torch.cat(tuple(left), dim=1))
    rights = orthogonalised(torch.cat(tuple(right), dim=0))
    merged: Tensor = lefts * values.flatten() @ rights
    return merged
