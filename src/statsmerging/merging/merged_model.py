"""The merged model as a function of its coefficients: merge, then a functional forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.choices import Anchor
from statsmerging.merging.bank import TaskVectorBank, merge_layer, summing_type
from statsmerging.merging.errors import MergingError, check_choice
from statsmerging.merging.kernels import PLAIN, Kernels, compiled_kernels


@dataclass(frozen=True)
class _Layer:
    """What the merge of one layer is computed from, besides its coefficients."""

    bank: TaskVectorBank
    name: str
    anchor: Anchor
    kernels: Kernels


class _MergeLayer(torch.autograd.Function):
    """One layer's merge; its backward is one matrix-vector product, ∂L/∂λ_k = ⟨G, T_k⟩.

    Only references to the bank are kept, so the graph holds no activation of the merge.
    """

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        ctx.dtype = coefficients.dtype
        bank, name = layer.bank, layer.name
        merged = merge_layer(
            coefficients, bank.pretrained[name], bank.vectors[name], layer.anchor, layer.kernels
        )
        bank.release(name)
        return merged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer: _Layer = ctx.layer
        gradient = gradients[0].reshape(-1)
        gradient = gradient.to(summing_type(gradient.dtype))
        products = layer.kernels.inner_products(layer.bank.vectors[layer.name], gradient)
        layer.bank.release(layer.name)
        if layer.anchor == "none":
            start = layer.bank.pretrained[layer.name].reshape(-1)
            products = products + torch.dot(start.to(gradient), gradient)
        return products.to(ctx.dtype), None


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
        bank: the task vectors.
        anchor: ``pretrained`` for θ₀ + Σ_k λ_k T_k, ``none`` for Σ_k λ_k θ_k.
        compiled: merge with kernels that torch.compile makes; same sums, rounded in another order.

    Raises:
        MergingError: an unknown anchor, ``compiled`` on a machine without a compiler, or tied
            weights.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bank: TaskVectorBank,
        anchor: Anchor = "pretrained",
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        check_choice("anchor", anchor, Anchor)
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
        """θ(λ) of the merged layers by name; ``coefficients`` is L × K or K."""
        rows = self.bank.layer_coefficients(coefficients).unbind(0)
        return {
            name: _MergeLayer.apply(row, _Layer(self.bank, name, self.anchor, self.kernels))
            for row, name in zip(rows, self.bank.layers, strict=True)
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
        self.bank.vectors = {name: fn(rows) for name, rows in self.bank.vectors.items()}
        return self

    def train(self, mode: bool = True) -> MergedModel:
        """Stay in evaluation mode: the backbone's dropout and normalisation are not learned."""
        del mode
        return super().train(False)
