"""RegMean: the linear layer that is closest to all experts on their own inputs."""

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
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows
from statsmerging.merging.state_dicts import matrix_shape

#: Added to every Gram matrix as a share of the mean of their diagonals: inputs that are never
#: active get the experts' average instead of a division by zero.
RIDGE = 1e-6


@dataclass(frozen=True)
class RegMean(EvidenceMethod):
    """RegMean (Jin et al., *Dataless Knowledge Fusion by Merging Weights of Language Models*,
    ICLR 2023).

    For a layer y = W x with m × n weights and the Gram matrices G_k = mean x xᵀ (n × n) of the
    inputs in expert k, W = (Σ_k W_k G_k) (Σ_k G_k)⁻¹ minimises Σ_k E‖(W − W_k) x‖². Off-diagonal
    entries of G_k are first multiplied by α. A convolution is out × rest, its inputs are patches
    in that order. Layers without Gram matrices are averaged. One expert gives itself, identical
    experts give that expert.

    Args:
        off_diagonal: α; the paper's value is 0.9 for encoders. 1 is plain least squares, 0 an
            average weighted by the inputs' energy.
    """

    name = "regmean"
    title = "RegMean"
    needs = "activations"
    tunable = Grid("off_diagonal", (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0))

    off_diagonal: float = parameter(0.9, at_least=0, at_most=1)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    def merge(self, bank: TaskVectorBank, evidence: Evidence) -> dict[str, Tensor]:
        check_evidence(bank, evidence)
        rows = stored_rows(bank)

        def update(layer: str) -> Tensor:
            vectors, start = rows(layer), bank.pretrained[layer]
            if start.dim() == 1:
                return vectors.mean(dim=0)
            shape = matrix_shape(start)
            grams = layer_evidence(bank, evidence, layer, (shape[1], shape[1]))
            if grams is None:
                return vectors.mean(dim=0)
            return regression_mean(vectors.view(-1, *shape), grams, self.off_diagonal)

        return add_to_pretrained(bank, update)


def regression_mean(matrices: Tensor, grams: list[Tensor], off_diagonal: float) -> Tensor:
    """Task matrices K × m × n and K Gram matrices n × n → merged update m × n.

    The formula on task matrices equals the formula on weights: θ₀ drops out. In float64, since
    Gram matrices of activations are close to singular.
    """
    energy = torch.stack([gram.diagonal().double().mean() for gram in grams]).mean()
    ridge = RIDGE * energy if energy > 0 else 1.0
    products = torch.zeros_like(matrices[0], dtype=torch.float64)
    total = torch.zeros_like(grams[0], dtype=torch.float64)
    for matrix, gram in zip(matrices.double(), grams, strict=True):
        shrunk = off_diagonal * gram.double()
        shrunk.diagonal().copy_(gram.diagonal() + ridge)
        products += matrix @ shrunk
        total += shrunk
    merged: Tensor = torch.linalg.solve(total, products, left=False)
    return merged.float()
