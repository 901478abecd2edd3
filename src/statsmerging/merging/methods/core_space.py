"""Core Space: low-rank task matrices merged in the small space that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, parameter
from statsmerging.merging.methods.iso import ISOTROPIC_SCALES, flatten_spectrum
from statsmerging.merging.methods.layers import merge_matrices
from statsmerging.merging.methods.tsv_m import merge_singular_vectors
from statsmerging.merging.singular_vectors import leading_triples

CoreMerge = Literal["task_arithmetic", "tsv_m"]


@dataclass(frozen=True)
class CoreSpace(DataFreeMethod):
    """Core Space Merging (Panariello et al., *Accurate and Efficient Low-Rank Model Merging in Core
    Space*, NeurIPS 2025).

    Orthonormal bases U and V span the columns and the rows of all task matrices T_k of a layer. The
    cores M_k = Uᵀ T_k V, with as many rows and columns as the tasks have ranks together, are merged
    to M, and the update is U M Vᵀ. All but 2-D tensors are averaged.

    The released code takes U and V from the factors of LoRA, which full weights do not have; they
    come from the singular vectors of T_k here. The merges that are offered depend on the spaces
    alone, not on the bases taken in them (TIES would), so they equal the same merges of the whole
    matrices: TSV-M if the tasks' ranks are equal and no larger than its share, and Iso-C if the
    sum is made isotropic. Experts whose ranks together reach a side of the matrix, as those of full
    rank, have a core as large as that side, which is then left as it is.

    Args:
        merge_cores: ``tsv_m``, or their sum (``task_arithmetic``).
        isotropic: all singular values of M are replaced by their mean, as in Iso-C; with ``tsv_m``
            it is the example of the released code.
        scale: factor on the merged update; the paper tunes it, 1 leaves it out.
        flatten_convolutions: tensors of more than two dimensions, such as a patch embedding, are
            matrices too, as out × rest.
    """

    name = "core_space"
    title = "Core Space"
    tunable = ISOTROPIC_SCALES

    merge_cores: CoreMerge = "tsv_m"
    isotropic: bool = parameter(True)
    scale: float = parameter(1.0, at_least=0)
    flatten_convolutions: bool = parameter(False)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"isotropic": False} if copies == 1 else None

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        return merge_matrices(
            bank,
            lambda matrices, noise: merge_cores(
                matrices, noise, self.merge_cores, isotropic=self.isotropic
            ),
            self.scale,
            flatten_convolutions=self.flatten_convolutions,
        )


def merge_cores(matrices: Tensor, noise: Tensor, merge: CoreMerge, *, isotropic: bool) -> Tensor:
    """Task matrices K × m × n and their noise levels K → merged update m × n."""
    left, right = shared_bases(matrices, noise)
    cores = matrices if left is None else left.mT @ matrices
    cores = cores if right is None else cores @ right
    if not min(cores.shape):
        return torch.zeros_like(matrices[0])
    merged = merge_singular_vectors(cores, noise) if merge == "tsv_m" else cores.sum(dim=0)
    if isotropic:
        merged = flatten_spectrum(merged.unsqueeze(0), noise.norm().unsqueeze(0))
    merged = merged if left is None else left @ merged
    return merged if right is None else merged @ right.mT


def shared_bases(matrices: Tensor, noise: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Orthonormal bases of the columns and of the rows of K matrices: m × p and n × p.

    p is the sum of the ranks; ``None`` stands for a side that is no larger.
    """
    _, rows, columns = matrices.shape
    left, values, right = leading_triples(matrices, min(rows, columns), noise)
    present = values > 0
    directions = int(present.sum())
    bases: list[Tensor | None] = [None, None]
    for side, (size, vectors) in enumerate([(rows, left.mT), (columns, right)]):
        if directions < size:
            bases[side], _ = torch.linalg.qr(vectors[present].mT)
    return bases[0], bases[1]
