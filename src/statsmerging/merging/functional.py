"""The merged model as a function of its coefficients: merge, then a functional forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging.task_vectors import CHUNK, Anchor, TaskVectorBank, merge_layer


class _MergeLayer(torch.autograd.Function):
    """One layer's merge; its backward is one matrix-vector product, ∂L/∂λ_k = ⟨G, T_k⟩.

    Only references to the bank are saved, so the graph holds no activation of the merge.
    """

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, pretrained: Tensor, vectors: Tensor, anchor: Anchor
    ) -> Tensor:
        ctx.save_for_backward(coefficients, pretrained, vectors)
        ctx.anchor = anchor
        return merge_layer(coefficients, pretrained, vectors, anchor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        coefficients, pretrained, vectors = ctx.saved_tensors
        gradient = gradients[0].reshape(-1)
        products = _inner_products(vectors, gradient)
        if ctx.anchor == "none":
            products = products + torch.dot(pretrained.reshape(-1), gradient)
        return products.to(coefficients.dtype), None, None, None


def _inner_products(vectors: Tensor, gradient: Tensor) -> Tensor:
    """⟨T_k, G⟩ for every k: K × n times n, accumulated in the gradient's precision."""
    if vectors.dtype == gradient.dtype:
        return vectors @ gradient
    products = gradient.new_zeros(vectors.shape[0])
    for start in range(0, vectors.shape[1], CHUNK):
        columns = vectors[:, start : start + CHUNK].to(gradient.dtype)
        products += columns @ gradient[start : start + CHUNK]
    return products


class MergedModel(nn.Module):
    """A backbone whose weights are θ(λ), differentiable in λ and in nothing else.

    The backbone's parameters become references to the bank's pre-trained tensors and are frozen:
    one copy of θ₀ serves both. The module has no trainable parameter of its own.

    Args:
        backbone: any module whose state dict the bank was built from.
        bank: the task vectors.
        anchor: ``pretrained`` for θ₀ + Σ_k λ_k T_k, ``none`` for Σ_k λ_k θ_k.
    """

    def __init__(
        self, backbone: nn.Module, bank: TaskVectorBank, anchor: Anchor = "pretrained"
    ) -> None:
        super().__init__()
        backbone.load_state_dict({**bank.kept, **bank.pretrained}, assign=True)
        self.backbone = backbone.eval().requires_grad_(False)
        self.bank = bank
        self.anchor: Anchor = anchor

    def weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        """θ(λ) of the merged layers by name; ``coefficients`` is L × K or K."""
        rows = self.bank.layer_coefficients(coefficients).unbind(0)
        return {
            name: _MergeLayer.apply(row, start, self.bank.vectors[name], self.anchor)
            for row, (name, start) in zip(rows, self.bank.pretrained.items(), strict=True)
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
