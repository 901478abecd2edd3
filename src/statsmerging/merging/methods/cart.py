"""CART: the average of the experts, and the leading directions in which they differ from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, is_matrix, stored_rows
from statsmerging.merging.singular_vectors import leading_triples, noise_levels
from statsmerging.merging.state_dicts import matrix_shape


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
        rows = stored_rows(bank)

        def update(layer: str) -> Tensor:
            vectors, start = rows(layer), bank.pretrained[layer]
            mean = vectors.mean(dim=0)
            if not is_matrix(start, flatten_convolutions=self.flatten_convolutions):
                return mean
            noise = noise_levels(start, vectors, bank.rounding[layer], bank.vectors[layer].dtype)
            centred = (vectors - mean).view(-1, *matrix_shape(start))
            rank = max(1, int(self.share * min(centred.shape[1:])))
            left, values, right = leading_triples(centred, rank, noise)
            differences = (left * values.unsqueeze(1) @ right).sum(dim=0)
            return mean + self.spread * differences.flatten()

        return add_to_pretrained(bank, update)
