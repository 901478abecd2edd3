"""SVC: singular values that several tasks have added up are scaled back, after any merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, method_named, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, is_matrix, stored_rows
from statsmerging.merging.singular_vectors import thin_svd
from statsmerging.merging.state_dicts import matrix_shape

Calibrated = Literal["task_arithmetic", "ties", "dare_task_arithmetic", "dare_ties", "tsv_m"]


@dataclass(frozen=True)
class Svc(DataFreeMethod):
    """Singular Value Calibration (Li et al., *When Shared Knowledge Hurts: Spectral
    Over-Accumulation in Model Merging*, ICML 2026).

    Another method merges first. Of its update U Σ Vᵀ of a layer, every singular value σ_r is
    multiplied by γ_r = K / Σ_k max(α, s_rk), where

        s_rk = ⟨u_rᵀ U Σ Vᵀ, u_rᵀ T_k⟩ / ‖u_rᵀ T_k‖²

    tells how many times what task k does in the output direction u_r is in the update: above 1 it
    is counted too often. The directions stay. Tensors other than 2-D ones, embeddings and the text
    projection stay as they were merged. One expert does not come back.

    The factor is the paper's. The released code takes γ_r = 1 / max(α, mean_k s_rk) where all s_rk
    are positive, and 1 elsewhere. The paper calibrates Iso-C too: its singular values are all
    equal, so that its u_r, and the result, are those that rounding happens to choose; it is not
    among the choices here.

    Args:
        base: the method that merges first, with its default parameters.
        alpha: α; 1 only ever makes singular values smaller, less may enlarge them. Above all s_rk
            it divides the whole update.
    """

    name = "svc"
    title = "SVC"
    tunable = Grid("alpha", (0.05, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0))

    base: Calibrated = "task_arithmetic"
    alpha: float = parameter(1.0, above=0)

    @property
    def heading(self) -> str:
        return f"{self.title} ({method_named(self.base).title})"

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        rows, updates = stored_rows(bank), base_updates(bank, self.base)

        def update(layer: str) -> Tensor:
            start, merged = bank.pretrained[layer], updates[layer]
            if not is_calibrated(layer, start):
                return merged
            matrices = rows(layer).view(-1, *matrix_shape(start))
            return calibrated(merged.view(matrices.shape[1:]), matrices, self.alpha)

        return add_to_pretrained(bank, update)


def base_updates(bank: TaskVectorBank, base: str) -> dict[str, Tensor]:
    """Layer → what another data-free method adds to θ₀, in float32 or finer."""
    wide = {
        layer: start.to(torch.promote_types(start.dtype, torch.float32))
        for layer, start in bank.pretrained.items()
    }
    finer = TaskVectorBank(bank.tasks, wide, bank.vectors, bank.kept, bank.file)
    finer.rounding = bank.rounding
    method = method_named(base)
    assert isinstance(method, DataFreeMethod)
    merged = method.merge(finer)
    return {layer: (merged[layer] - start).float() for layer, start in wide.items()}


def is_calibrated(layer: str, start: Tensor) -> bool:
    """Whether the released code calibrates a layer."""
    named = "embedding" in layer or "text_projection" in layer
    return not named and is_matrix(start, flatten_convolutions=False)


def calibrated(merged: Tensor, matrices: Tensor, alpha: float) -> Tensor:
    """Merged update m × n and task matrices K × m × n → the update with calibrated values.

    A task with nothing in an output direction has s = 0 there.
    """
    left, values, right = thin_svd(merged)
    responses = left.mT @ matrices  # K × r × n
    energies = responses.square().sum(dim=2)
    shared = ((left.mT @ merged) * responses).sum(dim=2)
    counted = torch.where(energies > 0, shared / energies, 0)
    factors = len(matrices) / counted.clamp_min(alpha).sum(dim=0)
    return left * (factors * values) @ right
