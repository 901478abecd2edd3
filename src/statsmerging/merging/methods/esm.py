"""ESM: the directions in which each expert moves a layer's outputs most, made orthogonal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import (
    Evidence,
    EvidenceMethod,
    Grid,
    check_evidence,
    layer_evidence,
    parameter,
)
from statsmerging.merging.methods.layers import (
    add_to_pretrained,
    blocks_of,
    is_matrix,
    layer_noise,
    stored_rows,
)
from statsmerging.merging.methods.tsv_m import merge_singular_vectors
from statsmerging.merging.singular_vectors import (
    gram_matrix,
    leading_eigenvectors,
    orthogonalised,
)
from statsmerging.merging.state_dicts import matrix_shape

#: The released code doubles the product of the orthogonal factors.
FACTOR = 2.0


@dataclass(frozen=True)
class Esm(EvidenceMethod):
    """Essential Subspace Merging (Li et al., *Model Merging in the Essential Subspace*, CVPR 2026),
    as its released code for vision transformers computes it.

    An m × n task matrix T_k shifts the outputs of its layer by T_k x. With the Gram matrix G_k of
    the inputs, U_k holds the leading min(m / K, n) eigenvectors of T_k G_k T_kᵀ (the ratio rounded
    down, at least one) with the energies e, and V_k = U_kᵀ T_k. Three norms polarise, by the same
    power p: V_k gets the factor (‖T_k‖ / mean_k ‖T_k‖)^p, every column of all V_k together that of
    its norm by the mean column's, and in the end a layer's update that of its norm by the mean over
    the same layers of all blocks. Columns of U_k and rows of V_k are weighted with e^w, of mean 1.
    Both factors of all tasks become orthogonal, each with its mean singular value: Δ = 2 Ũ Ṽ.

    Matrices without Gram matrices get TSV-M, other tensors the mean. The released code takes 32
    images of the test set, and TSV-M for the output projections of attention. The spectrum changes
    even with one expert, so ESM does not return it. Directions that rounding alone may have made
    are left out.

    Args:
        power: p of the norms; 2 in the released code.
        weighting: w of the energies; 0.15 in the released code.
        scale: λ on the merged update; tuned in the released code.
    """

    name = "esm"
    title = "ESM"
    needs = "activations"
    tunable = Grid("scale", (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6))

    power: float = parameter(2.0, at_least=0)
    weighting: float = parameter(0.15, at_least=0)
    scale: float = parameter(1.0, at_least=0)

    @torch.no_grad()
    def merge(self, bank: TaskVectorBank, evidence: Evidence) -> dict[str, Tensor]:
        check_evidence(bank, evidence)
        updates = {layer: self._update(bank, evidence, layer) for layer in bank.layers}
        factors = self._factors_of_layers(bank, updates)
        return add_to_pretrained(
            bank, lambda layer: self.scale * factors.get(layer, 1.0) * updates[layer]
        )

    def _update(self, bank: TaskVectorBank, evidence: Evidence, layer: str) -> Tensor:
        rows, start = stored_rows(bank)(layer), bank.pretrained[layer]
        if not is_matrix(start, flatten_convolutions=False):
            return rows.mean(dim=0)
        shape = matrix_shape(start)
        matrices, noise = rows.view(-1, *shape), layer_noise(bank, layer, rows)
        grams = layer_evidence(bank, evidence, layer, (shape[1], shape[1]))
        if grams is None:
            return merge_singular_vectors(matrices, noise)
        return merge_essential(matrices, grams, noise, power=self.power, weighting=self.weighting)

    def _factors_of_layers(
        self, bank: TaskVectorBank, updates: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Layer → (norm by the mean norm of the same layer of all blocks)^p."""
        same: dict[str, dict[str, float]] = {}
        for block in blocks_of(bank.layers):
            for layer in bank.layers:
                if layer.startswith(block) and updates[layer].dim() == 2:
                    kind = layer.removeprefix(block)
                    same.setdefault(kind, {})[layer] = float(updates[layer].norm())
        return {
            layer: (norm * len(norms) / sum(norms.values())) ** self.power if norm else 1.0
            for norms in same.values()
            for layer, norm in norms.items()
        }


def merge_essential(
    matrices: Tensor, grams: list[Tensor], noise: Tensor, *, power: float, weighting: float
) -> Tensor:
    """Task matrices K × m × n, Gram matrices n × n and noise levels K → merged update m × n."""
    rows, columns = matrices.shape[1:]
    rank = min(max(1, rows // len(matrices)), columns)
    norms = torch.linalg.matrix_norm(matrices)
    lefts, rights = [], []
    for matrix, gram, norm, level in zip(matrices, grams, norms, noise, strict=True):
        directions, energies = principal_directions(matrix.double(), gram.double(), rank)
        coordinates = directions.mT @ matrix.double()
        present = torch.linalg.vector_norm(coordinates, dim=1) > level
        if not present.any():
            continue
        weights = (energies * present / energies.mean()) ** weighting * present
        weights = weights / weights.mean()
        lefts.append((directions * weights).to(matrix.dtype))
        polarised = (norm / norms.mean()) ** power
        rights.append(polarised * (coordinates * weights.unsqueeze(1)).to(matrix.dtype))
    if not lefts:
        return torch.zeros_like(matrices[0])
    right = torch.cat(rights)
    lengths = torch.linalg.vector_norm(right, dim=0)
    right = right * (lengths / lengths.mean()) ** power
    return FACTOR * evened(torch.cat(lefts, dim=1)) @ evened(right)


def principal_directions(matrix: Tensor, gram: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Eigenvectors of the r largest eigenvalues of T G Tᵀ, m × r, and these, r.

    Directions without energy are 0 if there are fewer columns than rows.

    Args:
        matrix: T, m × n, float64.
        gram: G, n × n, float64, positive semidefinite.
    """
    if len(matrix) <= matrix.shape[1]:
        shifts = matrix @ gram @ matrix.mT
        directions = leading_eigenvectors((shifts + shifts.mT) / 2, rank)
        return directions, (directions * (shifts @ directions)).sum(dim=0).clamp_min(0)
    squares, vectors = torch.linalg.eigh(gram)
    outputs = matrix @ (vectors * squares.clamp_min(0).sqrt())
    scaled = outputs @ leading_eigenvectors(gram_matrix(outputs.mT.contiguous()), rank)
    lengths = torch.linalg.vector_norm(scaled, dim=0)
    # Below this share of the largest, float64 gives no direction through squares.
    there = lengths > 1e-7 * lengths.max()
    return scaled / lengths.where(there, torch.inf), (lengths * there).square()


def evened(matrix: Tensor) -> Tensor:
    """The matrix with every singular value replaced by the mean of those that are not 0."""
    nearest = orthogonalised(matrix)
    return nearest * ((nearest * matrix).sum() / nearest.square().sum())
