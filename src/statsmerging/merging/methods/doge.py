"""DOGE: task matrices get a common change that lowers their conflicts outside a shared subspace."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import attention_and_mlps, merge_matrices, stored_rows
from statsmerging.merging.methods.ties import layer_sizes, magnitude_threshold
from statsmerging.merging.singular_vectors import RANK_TOLERANCE, leading_triples, thin_svd


@dataclass(frozen=True)
class Doge(DataFreeMethod):
    """DOGE TA (Wei et al., *Modeling Multi-Task Model Merging as Adaptive Projective Gradient
    Descent*, ICML 2025).

    θ₀ + Σ_k λ_k M_k ⊙ (T_k + Δ), layer by layer, with λ_k = η / ‖T_k‖ (Frobenius). M_k keeps the
    largest entries of T_k, over all merged layers together. Adam starts at Δ = 0 and minimises

        L(Δ) = Σ_k Σ_i ⟨T_k, T_k − Σ_j λ_j (T_j + Δ)⟩_i²        (inner products of the rows i)

    with gradients G − S Sᵀ G. The columns of S span what the tasks share: they are the leading left
    singular vectors of all tasks' leading min(m, n) / K left singular vectors side by side.

    As in the released code, the matrices of attention and MLPs alone are merged (in a network whose
    names tell none, all 2-D tensors are), and every other tensor stays pre-trained. Differences:
    directions that rounding alone may have made are left out of S, and a layer that an expert left
    as it was has λ_k = 0 (there, infinite). One expert does not come back.

    Args:
        eta: η; 0.07 in the authors' code for CLIP. A task's part of every matrix gets this norm,
            before Δ and the masks.
        density: share of entries that a mask keeps; 30 % in the authors' code.
        subspace: S has min(m, n) / subspace columns, rounded down; 6 in the authors' code.
        steps: Adam steps for each layer; 400 there.
        learning_rate: 1e-4 there, whatever the size of the task vectors.
        all_tensors: merge every matrix, tensors of more than two dimensions as out × rest, and
            average the vectors; what the released code leaves pre-trained then moves too.
    """

    name = "doge"
    title = "DOGE"
    tunable = Grid("eta", (0.01, 0.02, 0.035, 0.07, 0.14, 0.28, 0.56))

    eta: float = parameter(0.07, at_least=0)
    density: float = parameter(0.3, above=0, at_most=1)
    subspace: int = parameter(6, at_least=1)
    steps: int = parameter(400, at_least=0)
    learning_rate: float = parameter(1e-4, above=0)
    all_tensors: bool = parameter(False)

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        part = bank if self.all_tensors else attention_and_mlps(bank, self.name)
        threshold = magnitude_threshold(stored_rows(part), layer_sizes(part), self.density)
        threshold = threshold.view(-1, 1, 1)

        def merged(matrices: Tensor, noise: Tensor) -> Tensor:
            norms = matrices.flatten(1).norm(dim=1)
            factors = torch.where(norms > 0, self.eta / norms, 0)
            shared = shared_directions(matrices, noise, self.subspace)
            change = conflict_change(matrices, factors, shared, self.steps, self.learning_rate)
            masked = torch.where(matrices.abs() >= threshold, matrices + change, 0)
            return torch.einsum("k,kmn->mn", factors, masked)

        return merge_matrices(part, merged, scale=1.0, flatten_convolutions=self.all_tensors)


def shared_directions(matrices: Tensor, noise: Tensor, subspace: int) -> Tensor:
    """Orthonormal columns that span what K × m × n task matrices share: m × at most n / subspace.

    Args:
        noise: see ``leading_triples``, K.
    """
    smaller = min(matrices.shape[1:])
    left, _, _ = leading_triples(matrices, max(1, smaller // len(matrices)), noise)
    basis, values, _ = thin_svd(torch.cat(tuple(left), dim=1))
    kept = values[: smaller // subspace] > RANK_TOLERANCE * values[0]
    return basis[:, : int(kept.sum())]


def conflict_change(
    matrices: Tensor, factors: Tensor, shared: Tensor, steps: int, learning_rate: float
) -> Tensor:
    """Task matrices K × m × n, λ_k and S → Δ after the given Adam steps, m × n.

    The loss of a row depends on Δ through the K inner products with the tasks' rows alone, so the
    gradient is written down: two passes over the task matrices a step.
    """
    rows = matrices.transpose(0, 1).contiguous()
    merged = torch.einsum("k,kmn->mn", factors, matrices)
    residuals = rows.square().sum(dim=2) - (rows @ merged.unsqueeze(2)).squeeze(2)
    total = factors.sum()

    change = nn.Parameter(torch.zeros_like(merged))
    position = change.detach()  # the same memory, outside of autograd
    optimizer = torch.optim.Adam([change], lr=learning_rate)
    for _ in range(steps):
        remaining = residuals - total * (rows @ position.unsqueeze(2)).squeeze(2)
        gradient = -2 * total * (remaining.unsqueeze(1) @ rows).squeeze(1)
        change.grad = gradient - shared @ (shared.mT @ gradient)
        optimizer.step()
    return position
