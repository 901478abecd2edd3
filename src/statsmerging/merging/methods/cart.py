"""CART: the average of the experts, and the leading directions in which they differ from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.singular_vectors import leading_triples


@dataclass(frozen=True)
class Cart(DataFreeMethod):
    """CART (Choi et al., *Revisiting Weight Averaging for Model Merging*, 2024).

    θ̄ + λ Σ_k SVD_r(θ_k − θ̄) with the average θ̄ of the experts and the leading r singular triples
    of each matrix: centred at the average, task matrices interfere less, and their leading
    directions hold what is of one task. All other tensors are averaged, as centred vectors sum to
    zero. The released code truncates the matrices of attention and MLPs alone.

    Args:
        share: r as a share of min(m, n), rounded down, at least 1; about 0.08 is best in the paper.
        spread: λ. The paper tunes it; 1 leaves the differences as they are.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest; the released code averages them.
    """

    name = "cart"
    title = "CART"
    tunable = Grid("spread", (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0))

    share: float = parameter(0.08, above=0, at_most=1)
    spread: float = parameter(1.0, at_least=0)
    flatten_convolutions: bool = parameter(False)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        def update(matrices: Tensor, noise: Tensor) -> Tensor:
            mean = matrices.mean(dim=0)
            rank = max(1, int(self.share * min(mean.shape)))
            left, values, right = leading_triples(matrices - mean, rank, noise)
            return mean + self.spread * (left * values.unsqueeze(1) @ right).sum(dim=0)

        return merge_matrices(bank, update, 1.0, flatten_convolutions=self.flatten_convolutions)
