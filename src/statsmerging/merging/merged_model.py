"""The merged model as a function of its coefficients: merge, then a functional forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.choices import Anchor
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError, check_choice
from statsmerging.merging.kernels import PLAIN, Kernels, compiled_kernels
from statsmerging.merging.spectral import SpectralBank, check_anchored

#: What a merged model is made of; both have coefficients layer by layer.
Bank = TaskVectorBank | SpectralBank


@dataclass(frozen=True)
class _Layer:
    """What the merge of one layer is computed from, besides its coefficients."""

    bank: Bank
    name: str
    anchor: Anchor
    kernels: Kernels


class _MergeLayer(torch.autograd.Function):
    """One layer's merge; its backward is one product with what the bank holds.

    Only references to the bank are kept, so the graph holds no activation of the merge.
    """

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        ctx.dtype = coefficients.dtype
        return layer.bank.merge_layer(layer.name, coefficients, layer.anchor, layer.kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer: _Layer = ctx.layer
        gradient = layer.bank.layer_gradient(layer.name, gradients[0], layer.anchor, layer.kernels)
        return gradient.to(ctx.dtype), None


def tied_names(backbone: nn.Module) -> tuple[str, str] | None:
    """Two names of one parameter, if the network ties weights.

    Each name has a layer of its own in a bank, and the two layers could not stay equal.
    """
    names: dict[nn.Parameter, str] = {}
    for name, parameter in backbone.named_parameters(remove_duplicate=False):
        if parameter in names:
            return names[parameter], name
        names[parameter] = name
    return None


class MergedModel(nn.Module):
    """A backbone whose weights are θ(λ), differentiable in λ and in nothing else.

    The backbone's parameters become references to the bank's pre-trained tensors and are frozen:
    one copy of θ₀ serves both. The module has no trainable parameter of its own.

    Args:
        backbone: any module whose state dict the bank was built from.
        bank: the task vectors, or their singular directions.
        anchor: ``pretrained`` for θ₀ + Σ_k λ_k T_k, ``none`` for Σ_k λ_k θ_k (task vectors alone).
        compiled: merge with kernels that torch.compile makes; same sums, rounded in another order.

    Raises:
        MergingError: an unknown anchor, ``compiled`` on a machine without a compiler, or tied
            weights.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bank: Bank,
        anchor: Anchor = "pretrained",
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        check_choice("anchor", anchor, Anchor)
        if isinstance(bank, SpectralBank):
            check_anchored(anchor)
        twins = tied_names(backbone)
        if twins is not None:
            raise MergingError(f"the backbone ties {twins[0]} to {twins[1]}, which is not merged")
        backbone.load_state_dict({**bank.kept, **bank.pretrained}, assign=True)
        self.backbone = backbone.eval().requires_grad_(False)
        self.bank = bank
        self.anchor: Anchor = anchor
        self.compiled = compiled
        if compiled:
            compiled_kernels()  # a missing compiler is noticed here, not in the first step

    @property
    def kernels(self) -> Kernels:
        """What merges; not an attribute, because compiled code cannot be sent to processes."""
        return compiled_kernels() if self.compiled else PLAIN

    def weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        """θ(λ) of the merged layers by name; differentiable in λ.

        Args:
            coefficients: L × K, K, or one per direction.
        """
        return {
            name: _MergeLayer.apply(row, _Layer(self.bank, name, self.anchor, self.kernels))
            for row, name in zip(self.bank.split(coefficients), self.bank.layers, strict=True)
        }

    def forward(self, images: Tensor, coefficients: Tensor) -> Tensor:
        """The backbone's output for ``images`` (N × C × H × W) under θ(λ)."""
        return self.call(self.weights(coefficients), images)

    def call(self, weights: dict[str, Tensor], images: Tensor) -> Tensor:
        """The backbone's output for ``images`` under the given weights, merged beforehand."""
        output: Tensor = functional_call(self.backbone, {**self.bank.kept, **weights}, (images,))
        return output

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MergedModel:
        """Move the bank with the backbone (``.to``, ``.cuda``); they keep sharing θ₀."""
        super()._apply(fn, recurse)
        state = self.backbone.state_dict()
        self.bank.pretrained = {name: state[name] for name in self.bank.pretrained}
        self.bank.kept = {name: state[name] for name in self.bank.kept}
        self.bank.move(fn)
        return self

    def train(self, mode: bool = True) -> MergedModel:
        """Stay in evaluation mode: the backbone's dropout and normalisation are not learned."""
        del mode
        return super().train(False)
