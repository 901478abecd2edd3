"""LOT Merging: for every layer the update under which its outputs stay closest to the experts'."""

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


@dataclass(frozen=True)
class Lot(EvidenceMethod):
    """Layer-wise Optimal Task vector Merging (Sun et al., *Towards Minimizing Feature Drift in
    Model Merging: Layer-wise Task Vector Fusion for Adaptive Knowledge Integration*, NeurIPS 2025).

    Every tensor is an operation of its own. Its update is T*, which minimises the squared distance
    between what θ₀ + T* and what θ₀ + T_k give on the inputs x that it has in expert k, summed over
    the experts:

    - a matrix, W x: T* = (Σ_k T_k G_k) (Σ_k G_k)⁺ with the Gram matrices G_k = mean x xᵀ;
    - the scale of a normalisation, w ∘ x: T* = Σ_k g_k ∘ T_k / Σ_k g_k with g_k = mean x ∘ x;
    - what is added, such as a bias: the mean of all T_k.

    The pseudo-inverse leaves θ₀ in all directions that the experts' inputs do not have; RegMean
    solves for the weights in place of the task vectors, and cannot. A convolution is out × rest. A
    tensor without evidence gets the mean. One expert, and identical experts, give that expert where
    the Gram matrices have full rank; elsewhere they give its outputs on the images.

    Args:
        scale: λ on the update. 1 is the minimum; the paper tunes it, and has 1.2 for ViT-B/32 and
            1.5 for ViT-L/14.
    """

    name = "lot"
    title = "LOT Merging"
    needs = "activations"
    tunable = Grid("scale", (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6))

    scale: float = parameter(1.0, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    @torch.no_grad()
    def merge(self, bank: TaskVectorBank, evidence: Evidence) -> dict[str, Tensor]:
        check_evidence(bank, evidence)
        rows = stored_rows(bank)

        def update(layer: str) -> Tensor:
            vectors, start = rows(layer), bank.pretrained[layer]
            if start.dim() == 1:
                squares = layer_evidence(bank, evidence, layer, tuple(start.shape))
                closest = (
                    vectors.mean(dim=0) if squares is None else closest_scale(vectors, squares)
                )
                return self.scale * closest
            shape = matrix_shape(start)
            grams = layer_evidence(bank, evidence, layer, (shape[1], shape[1]))
            if grams is None:
                return self.scale * vectors.mean(dim=0)
            return self.scale * closest_matrix(vectors.view(-1, *shape), grams)

        return add_to_pretrained(bank, update)


def closest_matrix(matrices: Tensor, grams: list[Tensor]) -> Tensor:
    """Task matrices K × m × n and K Gram matrices n × n → T*, m × n.

    Among the minima it is the one with the smallest norm.
    """
    products = torch.zeros_like(matrices[0], dtype=torch.float64)
    total = torch.zeros_like(grams[0], dtype=torch.float64)
    for matrix, gram in zip(matrices.double(), grams, strict=True):
        products += matrix @ gram.double()
        total += gram.double()
    # Sums in float32 may have this much energy in a direction that no input has.
    rounding = torch.finfo(torch.float32).eps * total.trace()
    inverse = torch.linalg.pinv(total, atol=rounding, rtol=0.0, hermitian=True)
    closest: Tensor = (products @ inverse).float()
    return closest


def closest_scale(vectors: Tensor, squares: list[Tensor]) -> Tensor:
    """Task vectors K × n and K mean squares of the inputs, n → T*, n; 0 where no input is."""
    weights = torch.stack(squares).double()
    total = weights.sum(dim=0)
    return torch.where(total > 0, (weights * vectors).sum(dim=0) / total, 0).float()
