"""A control: biases, norms and tokens are trained on the teachers' labels, as no merging does."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from statsmerging.choices import Anchor
from statsmerging.merging.merged_model import Bank, MergedModel


class StudentWithTrainedVectors(MergedModel):
    """A merged model with an offset for every weight of the layers that are no matrices.

    θ^ℓ = θ^ℓ(λ) + δ^ℓ: any vector can be reached, not only combinations of the experts' ones. How
    much of a result is due to training such layers, rather than to merging?

    Attributes:
        offsets: δ by layer, in the order of ``names``, 0 before the first step.
        names: the layers that are no matrices.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bank: Bank,
        anchor: Anchor = "pretrained",
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__(backbone, bank, anchor, compiled=compiled)
        vectors = bank.vector_layers
        self.names = tuple(name for name in bank.layers if name in vectors)
        self.offsets = nn.ParameterList(
            torch.zeros_like(bank.pretrained[name]) for name in self.names
        )

    def weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        """θ(λ) + δ by name; differentiable in both."""
        merged = super().weights(coefficients)
        moved = {
            name: merged[name] + offset
            for name, offset in zip(self.names, self.offsets, strict=True)
        }
        return {**merged, **moved}

    def trained(self) -> dict[str, Tensor]:
        """The offsets by name, without gradient."""
        pairs = zip(self.names, self.offsets, strict=True)
        return {name: offset.detach().clone() for name, offset in pairs}
