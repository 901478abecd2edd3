"""DC-Merge: TIES on the leading singular directions of every task, in bases that all share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, Grid, parameter
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.methods.ties import mean_of_elected
from statsmerging.merging.singular_vectors import leading_triples, orthogonalised

Smoothing = Literal["none", "average", "linear"]


@dataclass(frozen=True)
class DcMerge(DataFreeMethod):
    """DC-Merge (Zhang et al., *DC-Merge: Improving Model Merging with Directional Consistency*,
    CVPR 2026).

    Each m × n task matrix keeps its leading min(m, n) / K singular triples (rounded down, at
    least one): T_k ≈ U_k Σ_k V_kᵀ. The nearest orthonormal sets U and V to all tasks' vectors side
    by side, as in TSV-M, are bases in which the cores M_k = Uᵀ U_k Σ_k V_kᵀ V are merged by TIES:
    every core keeps its largest entries, an entry's sign is that of the sum, and those that have
    it are averaged. Of the merged core M the K diagonal blocks, in which a task meets itself, are
    kept, and the update is λ U M Vᵀ. All but 2-D tensors are averaged.

    Singular values may be smoothed first: the paper does so for LoRA, not for full fine-tuning,
    whose truncation leaves large values only. Differences to the released code: directions
    that rounding alone may have made are left out; where K does not divide min(m, n), it fills U
    and V with arbitrary directions, whose entries count in the shares. One expert comes back at
    ``density=1, scale=1`` without smoothing, to rounding.

    Args:
        density: share of the entries of each core that are kept, at least one; 1e-3 in the released
            code, for CLIP. Of about min(m, n)² entries, min(m, n) / K hold the singular values:
            where min(m, n) is below 1000 / K, 1e-3 drops some of these.
        smoothing: ``none``; ``average`` gives all singular values of a task their mean; ``linear``
            makes them fall evenly, with the same sum.
        ratio: ρ, first by last value of ``linear``, or their own if smaller; 5 in the released
            code.
        scale: λ; the released code's evaluation chooses it, 1 leaves it out.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest; the released code averages them.
    """

    name = "dc_merge"
    title = "DC-Merge"
    tunable = Grid("scale", (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0, 2.4))

    density: float = parameter(1e-3, above=0, at_most=1)
    smoothing: Smoothing = "none"
    ratio: float = parameter(5.0, at_least=1)
    scale: float = parameter(1.0, at_least=0)
    flatten_convolutions: bool = parameter(False)

    @classmethod
    def recovering(cls, copies: int) -> dict[str, object] | None:
        return {"density": 1.0} if copies == 1 else None

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        def merged(matrices: Tensor, noise: Tensor) -> Tensor:
            return merge_directions(matrices, noise, self.density, self.smoothing, self.ratio)

        return merge_matrices(
            bank, merged, self.scale, flatten_convolutions=self.flatten_convolutions
        )


def merge_directions(
    matrices: Tensor, noise: Tensor, density: float, smoothing: Smoothing, ratio: float
) -> Tensor:
    """Task matrices K × m × n and their noise levels K → merged update m × n.

    Args:
        density, smoothing, ratio: see ``DcMerge``.
    """
    tasks, rank = len(matrices), max(1, min(matrices.shape[1:]) // len(matrices))
    left, values, right = leading_triples(matrices, rank, noise)
    values = torch.stack([smoothed(spectrum, smoothing, ratio) for spectrum in values])
    lefts = orthogonalised(torch.cat(tuple(left), dim=1))
    rights = orthogonalised(torch.cat(tuple(right), dim=0))
    cores = (lefts.mT @ left * values.unsqueeze(1)) @ (right @ rights.mT)
    blocks = torch.block_diag(*cores.new_ones(tasks, rank, rank))
    merged: Tensor = lefts @ (blocks * elected_core(cores, density)) @ rights
    return merged


def smoothed(spectrum: Tensor, smoothing: Smoothing, ratio: float) -> Tensor:
    """Singular values in falling order, those that are not 0 with their sum spread anew."""
    present = spectrum[spectrum > 0]
    if smoothing == "none" or not len(present):
        return spectrum
    first = 1.0 if smoothing == "average" else min(ratio, float(present[0] / present[-1]))
    shape = torch.linspace(first, 1.0, len(present), dtype=spectrum.dtype, device=spectrum.device)
    result = torch.zeros_like(spectrum)
    result[: len(present)] = present.sum() * shape / shape.sum()
    return result


def elected_core(cores: Tensor, density: float) -> Tensor:
    """TIES-Merging of K × p × q matrices, each trimmed on its own → p × q."""
    entries = cores.flatten(1)
    kept = max(1, int(density * entries.shape[1]))
    threshold = entries.abs().kthvalue(entries.shape[1] - kept + 1, dim=1, keepdim=True).values
    trimmed = torch.where(entries.abs() >= threshold, entries, 0)
    return mean_of_elected(trimmed).view(cores.shape[1:])
