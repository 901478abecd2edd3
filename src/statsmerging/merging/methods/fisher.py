"""Fisher merging: an average in which every entry counts as much as its expert cares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import (
    Evidence,
    EvidenceMethod,
    check_evidence,
    layer_evidence,
    parameter,
)
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows


@dataclass(frozen=True)
class Fisher(EvidenceMethod):
    """Fisher merging (Matena & Raffel, *Merging Models with Fisher-Weighted Averaging*,
    NeurIPS 2022).

    θ = Σ_k F_k θ_k / Σ_k F_k, entry by entry, with the diagonal F_k of task k's Fisher
    information: the mean over images of the squared gradient of the log-likelihood, shaped like
    the tensor. Tensors without evidence are averaged. One expert gives itself, identical experts
    give that expert.

    Args:
        normalise: divide each F_k by its norm over all layers, so that no task dominates by the
            size of its gradients; on in the released code.
        floor: smallest value of a Fisher entry after that: where no expert cares, they are
            averaged. The released code's 1e-6 holds for a target model only, and none is here.
    """

    name = "fisher"
    title = "Fisher merging"
    needs = "gradients"

    normalise: bool = parameter(True)
    floor: float = parameter(1e-12, above=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {}

    def merge(self, bank: TaskVectorBank, evidence: Evidence) -> dict[str, Tensor]:
        check_evidence(bank, evidence)
        rows = stored_rows(bank)
        norms = _norms(bank, evidence) if self.normalise else torch.ones(len(bank.tasks))
        norms = norms.to(bank.device).unsqueeze(1)

        def update(layer: str) -> Tensor:
            vectors, diagonals = rows(layer), _diagonals(bank, evidence, layer)
            if diagonals is None:
                return vectors.mean(dim=0)
            weights = (diagonals / norms).clamp_min(self.floor)
            return (weights * vectors).sum(dim=0) / weights.sum(dim=0)

        return add_to_pretrained(bank, update)


def _diagonals(bank: TaskVectorBank, evidence: Evidence, layer: str) -> Tensor | None:
    """F_k of a layer, K × n."""
    found = layer_evidence(bank, evidence, layer, tuple(bank.pretrained[layer].shape))
    if found is None:
        return None
    diagonals = torch.stack(found).flatten(start_dim=1).float()
    if bool((diagonals < 0).any()):
        raise MergingError(f"{layer!r}: a Fisher diagonal has negative entries")
    return diagonals


def _norms(bank: TaskVectorBank, evidence: Evidence) -> Tensor:
    """‖F_k‖ over all layers, K."""
    squares = torch.zeros(len(bank.tasks), dtype=torch.float64, device=bank.device)
    for layer in bank.layers:
        diagonals = _diagonals(bank, evidence, layer)
        if diagonals is not None:
            squares += diagonals.double().square().sum(dim=1)
    for task, square in zip(bank.tasks, squares, strict=True):
        if square == 0:
            raise MergingError(f"the Fisher diagonal of task {task} is zero in every layer")
    return squares.sqrt().float()
