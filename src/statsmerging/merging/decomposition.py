"""From the K task matrices of a layer to singular directions with statistics.

The directions are those of TSV-M (Gargiulo et al., *Task Singular Vectors*, CVPR 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.singular_vectors import (
    leading_triples,
    noise_levels,
    orthogonalised,
    smaller_grams,
)
from statsmerging.merging.state_dicts import is_vector, matrix_shape

#: Statistics that every direction has of its own.
DIRECTION_COLUMNS = (
    "singular_value",
    "relative_value",
    "position",
    "energy",
    "left_interference",
    "right_interference",
    "alignment",
    "pretrained_energy",
    "experts",
)

#: Ends of the names of fused projections: queries, keys and values below each other.
FUSED_PROJECTIONS = ("qkv.weight", "in_proj_weight")


@dataclass(frozen=True)
class Decomposition:
    """How task vectors become directions.

    Attributes:
        rank: directions r of each expert in an m × n matrix; more than min(m, n) are min(m, n).
            ``None``: max(1, ⌊budget · min(m, n) / K⌋).
        budget: 1 keeps as many directions of all experts together as the matrix has.
        orthonormal: the left vectors of all experts are replaced by the nearest orthonormal set,
            and so are the right ones, as in TSV-M; ``False`` keeps the raw vectors.
        split_attention: queries, keys and values of a fused projection (``qkv.weight``,
            ``in_proj_weight``) are three matrices.
        dtype: precision in which the vectors are stored.

    Raises:
        MergingError: a rank below 1, a budget that is not positive and finite, or a type that holds
            no fractions.
    """

    rank: int | None = None
    budget: float = 1.0
    orthonormal: bool = True
    split_attention: bool = False
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise MergingError(f"rank={self.rank}: must be at least 1")
        if not 0 < self.budget < math.inf:
            raise MergingError(f"budget={self.budget:g}: must be above 0 and finite")
        if not self.dtype.is_floating_point:
            raise MergingError(
                f"dtype={self.dtype}: choose a floating-point type, e.g. torch.float32"
            )

    def rank_of(self, smaller_side: int, tasks: int) -> int:
        """r for matrices whose smaller side is min(m, n)."""
        wanted = self.rank if self.rank is not None else self.budget * smaller_side / tasks
        return max(1, int(min(smaller_side, wanted)))


@dataclass(frozen=True)
class Directions:
    """The singular directions of one layer in B blocks of rows; D = K·r in each, task by task.

    A layer is one block, a fused attention projection may be three. The update of a block is
    ``left · diag(λ ∘ values) · right``.

    Attributes:
        left: û, B × m × D.
        values: σ, B × D; 0 for directions beyond the rank of an expert.
        right: v̂, B × D × n.
        statistics: raw, B × D × F, with columns ``DIRECTION_COLUMNS``, on the CPU.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    statistics: Tensor

    def moved(self, fn: Callable[[Tensor], Tensor]) -> Directions:
        """Everything that merges, elsewhere."""
        return replace(self, left=fn(self.left), values=fn(self.values), right=fn(self.right))


@torch.no_grad()
def decompose_layer(bank: TaskVectorBank, name: str, how: Decomposition) -> Directions:
    """Singular directions of one layer of a bank, with their statistics."""
    start, stored = bank.pretrained[name], bank.task_vectors(name)
    rows, rounding = stored.float(), bank.rounding[name]
    if is_vector(start):
        return _whole_vectors(start.float().reshape(1, -1), rows, how.dtype)
    fused = name.endswith(FUSED_PROJECTIONS) and len(start) % 3 == 0
    blocks = 3 if how.split_attention and fused else 1
    starts = start.float().reshape(*matrix_shape(start)).chunk(blocks)
    matrices = rows.view(len(rows), *matrix_shape(start)).chunk(blocks, dim=1)
    parts = [
        _decompose(
            block_start,
            block,
            noise_levels(block_start, block.flatten(1), rounding, stored.dtype),
            how,
        )
        for block_start, block in zip(starts, matrices, strict=True)
    ]
    left, values, right, statistics = map(torch.stack, zip(*parts, strict=True))
    return Directions(left.to(how.dtype), values, right.to(how.dtype), statistics.cpu())


def _decompose(
    start: Tensor, matrices: Tensor, noise: Tensor, how: Decomposition
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """θ₀ m × n and K × m × n task matrices → left m × D, values D, right D × n, D × F."""
    tasks = len(matrices)
    rank = how.rank_of(min(start.shape), tasks)
    grams = smaller_grams(matrices)
    left, values, right = leading_triples(matrices, rank, noise, grams)
    statistics = _statistics(start, matrices, grams, left, values, right)
    lefts, rights = torch.cat(tuple(left), dim=1), torch.cat(tuple(right), dim=0)
    if how.orthonormal:
        lefts, rights = orthogonalised(lefts), orthogonalised(rights)
    return lefts, values.flatten(), rights, statistics


def _whole_vectors(start: Tensor, rows: Tensor, dtype: torch.dtype) -> Directions:
    """One direction per expert, its whole task vector; θ₀ is 1 × n, ``rows`` K × n.

    Rounding is left in them: they are not orthogonalised, which would amplify it.
    """
    values = torch.linalg.vector_norm(rows, dim=1)
    right = rows / values.where(values > 0, torch.inf).unsqueeze(1)
    left = torch.ones_like(values).view(1, 1, -1)
    ones = left.view(-1, 1, 1)
    matrices = rows.unsqueeze(1)
    statistics = _statistics(
        start, matrices, smaller_grams(matrices), ones, values.unsqueeze(1), right.unsqueeze(1)
    )
    return Directions(
        left.to(dtype),
        values.unsqueeze(0),
        right.unsqueeze(0).to(dtype),
        statistics.unsqueeze(0).cpu(),
    )


def _statistics(
    start: Tensor, matrices: Tensor, grams: Tensor, left: Tensor, values: Tensor, right: Tensor
) -> Tensor:
    """Statistics of raw directions: θ₀ m × n, K × m × n, K × m × r, K × r, K × r × n → K·r × F.

    What spans orders of magnitude is a logarithm; a direction beyond the rank has zeros.

    Args:
        grams: ``smaller_grams`` of the task matrices.
    """
    tasks, rank = values.shape
    present = values > 0
    smallest, largest = torch.finfo(values.dtype).tiny, torch.finfo(values.dtype).max
    own = values.square().clamp_min(smallest).where(present, 1.0)
    energies, together = _of_others(matrices, grams, left, right)
    interference = (energies / own).clamp_max(largest).log1p()
    first = values[:, :1].expand_as(values).where(present, 1.0)
    total = grams.diagonal(dim1=1, dim2=2).sum(dim=1, keepdim=True).to(values).clamp_min(smallest)
    size = start.square().sum().clamp_min(smallest)
    on_start = (right @ start.mT).square().sum(dim=2) * start.shape[1] / size
    columns = [
        own.log() / 2,
        values / first,
        torch.arange(rank, device=values.device).expand_as(values) / rank,
        own / total,
        *interference,
        (together / values.where(present, 1.0)).clamp(-1, 1),
        on_start.log1p(),
        torch.full_like(values, math.log(tasks)),
    ]
    return (torch.stack(columns, dim=2) * present.unsqueeze(2)).flatten(end_dim=1)


def _of_others(
    matrices: Tensor, grams: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """What the other experts j ≠ k do along û_ki and v̂_ki, summed over them.

    Returns:
        Σ ‖û_kiᵀ T_j‖² and Σ ‖T_j v̂_ki‖², 2 × K × r; Σ û_kiᵀ T_j v̂_ki, K × r.
    """
    tasks, rank = right.shape[:2]
    upright = matrices.shape[1] > matrices.shape[2]
    short, long = (right, left.mT) if upright else (left.mT, right)
    long = long.reshape(tasks * rank, -1)
    turned = matrices if upright else matrices.mT
    along_short, along_long, together = (right.new_zeros(tasks, rank) for _ in range(3))
    all_matrices, all_grams = matrices.sum(dim=0), grams.sum(dim=0)
    for k in range(tasks):
        # On the shorter side the Gram matrices of all the others are one product.
        vectors = short[k].to(grams)
        energy = (vectors @ (all_grams - grams[k]) * vectors).sum(dim=1)
        along_short[k] = energy.clamp_min(0).to(right)
        together[k] = (left[k].mT @ (all_matrices - matrices[k]) * right[k]).sum(dim=1)
        energy = (long @ turned[k]).square().sum(dim=1).view(tasks, rank)
        energy[k] = 0
        along_long += energy
    energies = [along_long, along_short] if upright else [along_short, along_long]
    return torch.stack(energies), together
