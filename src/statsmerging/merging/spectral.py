"""The spectral bank: the leading singular directions of K task vectors, and their statistics.

Where ``TaskVectorBank`` has one coefficient per layer and expert, here every singular direction of
every task matrix has its own: θ^ℓ = θ₀^ℓ + Σ_k Σ_i λ_{k,i} σ_{k,i} û_{k,i} v̂_{k,i}ᵀ. The directions
are those of TSV-M (Gargiulo et al., *Task Singular Vectors*, CVPR 2025), which is λ = 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

import torch
from torch import Tensor

from statsmerging.choices import Anchor
from statsmerging.merging.bank import (
    Coefficient,
    TaskVectorBank,
    check_experts,
    is_vector,
    matrix_shape,
    split_merged_and_kept,
    summing_type,
)
from statsmerging.merging.errors import MergingError
from statsmerging.merging.kernels import PLAIN, Kernels
from statsmerging.merging.singular_vectors import (
    leading_triples,
    noise_levels,
    orthogonalised,
    smaller_grams,
)

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

#: Layers that are decomposed at the same time, at most: the task vectors of each are in memory.
SIDE_BY_SIDE = 4

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


class SpectralBank:
    """The pre-trained weights θ₀ and the leading singular directions of K task vectors.

    It holds about min(m, n)·(m + n) numbers per m × n layer, whatever K is. Tensors of two or more
    dimensions are matrices, a convolution as out × rest; any other layer, such as a bias, is one
    direction per expert: its whole task vector.

    Coefficients λ are a vector with one number per direction: layer by layer, block by block, task
    by task, from the largest singular value down.

    Attributes:
        tasks: K task names.
        pretrained: θ₀ of the merged layers by name.
        kept: tensors that are not merged, see ``TaskVectorBank``.
        directions: layer → its directions.
        orthonormal: see ``Decomposition``.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        pretrained: dict[str, Tensor],
        kept: dict[str, Tensor],
        directions: dict[str, Directions],
        *,
        orthonormal: bool = True,
    ) -> None:
        self.tasks = tasks
        self.pretrained = pretrained
        self.kept = kept
        self.directions = directions
        self.orthonormal = orthonormal
        if not any(bool(each.values.any()) for each in directions.values()):
            raise MergingError("the experts differ from the pre-trained model by rounding alone")

    @classmethod
    def from_state_dicts(
        cls,
        pretrained: Mapping[str, Tensor],
        experts: Mapping[str, Mapping[str, Tensor]],
        decomposition: Decomposition | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> SpectralBank:
        """Decompose K experts; the task vectors of a few layers exist at a time.

        Args:
            pretrained: θ₀ by tensor name.
            experts: task name → θ_k, with the names and shapes of ``pretrained``.
            decomposition: ``None`` for the defaults.
            device: where the directions are computed and live.

        Raises:
            MergingError: see ``TaskVectorBank.from_state_dicts``; or experts that differ from
                ``pretrained`` by rounding alone.
        """
        check_experts(pretrained, experts)
        decomposition = decomposition or Decomposition()
        merged, kept = split_merged_and_kept(pretrained, experts)
        reading = Lock()

        def decompose(name: str) -> Directions:
            with reading:  # a mapping that reads from a file does one thing at a time
                layer = TaskVectorBank.from_state_dicts(
                    {name: merged[name]},
                    {task: {name: state[name]} for task, state in experts.items()},
                    device=device,
                )
            return decompose_layer(layer, name, decomposition)

        return cls(
            tuple(experts),
            {name: tensor.to(device) for name, tensor in merged.items()},
            {name: tensor.to(device) for name, tensor in kept.items()},
            side_by_side(decompose, tuple(merged), torch.device(device)),
            orthonormal=decomposition.orthonormal,
        )

    @classmethod
    def from_bank(
        cls, bank: TaskVectorBank, decomposition: Decomposition | None = None
    ) -> SpectralBank:
        """The directions of the task vectors of a bank, on its device.

        Raises:
            MergingError: experts that differ from the pre-trained model by rounding alone.
        """
        decomposition = decomposition or Decomposition()

        def decompose(name: str) -> Directions:
            directions = decompose_layer(bank, name, decomposition)
            bank.release(name)
            return directions

        return cls(
            bank.tasks,
            bank.pretrained,
            bank.kept,
            side_by_side(decompose, bank.layers, bank.device),
            orthonormal=decomposition.orthonormal,
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the merged tensors, in the order of the state dict (length L)."""
        return tuple(self.pretrained)

    @property
    def device(self) -> torch.device:
        return next(iter(self.pretrained.values())).device

    @property
    def sizes(self) -> dict[str, int]:
        """Layer → the number of its directions, B · K · r."""
        return {name: each.values.numel() for name, each in self.directions.items()}

    @torch.no_grad()
    def merge(self, coefficients: Tensor, anchor: Anchor = "pretrained") -> dict[str, Tensor]:
        """State dict θ(λ) of the merged model, without gradient.

        Args:
            coefficients: λ, one per direction.
            anchor: ``pretrained``; without θ₀ there are no singular directions.

        Raises:
            MergingError: another number of coefficients, or ``anchor="none"``.
        """
        check_anchored(anchor)
        weights = {
            name: self.merge_layer(name, row)
            for row, name in zip(self.split(coefficients), self.layers, strict=True)
        }
        return {**self.kept, **weights}

    def listed(self, coefficients: Tensor) -> list[Coefficient]:
        """λ one by one, without those of directions beyond an expert's rank.

        Several blocks of a layer are called ``NAME[0]``, ``NAME[1]`` …
        """
        listed = []
        for row, (name, parts) in zip(
            self.split(coefficients.cpu()), self.directions.items(), strict=True
        ):
            blocks, tasks = len(parts.values), len(self.tasks)
            values = row.view(blocks, tasks, -1).tolist()
            spectra = parts.values.view(blocks, tasks, -1).tolist()
            listed += [
                Coefficient(
                    f"{name}[{block}]" if blocks > 1 else name, task, value, direction, sigma
                )
                for block in range(blocks)
                for k, task in enumerate(self.tasks)
                for direction, (value, sigma) in enumerate(
                    zip(values[block][k], spectra[block][k], strict=True)
                )
                if sigma > 0
            ]
        return listed

    def split(self, coefficients: Tensor) -> tuple[Tensor, ...]:
        """λ layer by layer, in the order of ``layers``."""
        sizes = list(self.sizes.values())
        if coefficients.shape != (sum(sizes),):
            raise MergingError(
                f"coefficients have shape {tuple(coefficients.shape)}, expected ({sum(sizes)},)"
            )
        return torch.split(coefficients.to(self.device), sizes)

    def merge_layer(
        self,
        name: str,
        coefficients: Tensor,
        anchor: Anchor = "pretrained",
        kernels: Kernels = PLAIN,
    ) -> Tensor:
        """θ₀ + left · diag(λ ∘ σ) · right of one layer, in θ₀'s shape: one product of matrices.

        Args:
            coefficients: λ of the layer's directions.
            anchor: ``pretrained``.
            kernels: unused; they are for dense task vectors.
        """
        del kernels
        check_anchored(anchor)
        start, parts = self.pretrained[name], self.directions[name]
        dtype = summing_type(start.dtype)
        factors = coefficients.view_as(parts.values).to(parts.values) * parts.values
        scaled = parts.left.to(dtype) * factors.to(dtype).unsqueeze(1)
        blocks = start.to(dtype).view(*scaled.shape[:2], -1)
        return torch.baddbmm(blocks, scaled, parts.right.to(dtype)).view_as(start).to(start.dtype)

    def layer_gradient(
        self,
        name: str,
        gradient: Tensor,
        anchor: Anchor = "pretrained",
        kernels: Kernels = PLAIN,
    ) -> Tensor:
        """∂L/∂λ of a layer's directions: σ_i û_iᵀ G v̂_i, one product of matrices and a row sum.

        Args:
            gradient: G = ∂L/∂θ^ℓ, in θ₀'s shape.
            anchor: ``pretrained``.
            kernels: unused.
        """
        del kernels, anchor
        parts = self.directions[name]
        dtype = summing_type(gradient.dtype)
        blocks = gradient.to(dtype).reshape(*parts.left.shape[:2], -1)
        products = blocks @ parts.right.to(dtype).mT
        along = (parts.left.to(dtype) * products).sum(dim=1)
        return (along * parts.values.to(dtype)).flatten()

    def release(self, layer: str) -> None:
        """Nothing: directions are small enough to stay in memory."""

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the directions, e.g. to another device."""
        self.directions = {name: each.moved(fn) for name, each in self.directions.items()}


def check_anchored(anchor: Anchor) -> None:
    """Raise ``MergingError`` unless the coefficients are on directions from θ₀."""
    if anchor != "pretrained":
        raise MergingError(f"anchor={anchor}: singular directions start from θ₀; use pretrained")


def side_by_side(
    decompose: Callable[[str], Directions], layers: Sequence[str], device: torch.device
) -> dict[str, Directions]:
    """The directions of all layers; on a CPU, several layers at a time with their own threads.

    Threads that share the eigenproblem of one small matrix mostly wait for each other.
    """
    threads = torch.get_num_threads()
    workers = min(threads, SIDE_BY_SIDE) if device.type == "cpu" else 1
    if workers == 1:
        return {name: decompose(name) for name in layers}
    try:
        # The number of threads is a setting of each thread; new ones take the last that was made.
        with ThreadPoolExecutor(
            workers, "layer", torch.set_num_threads, (threads // workers,)
        ) as pool:
            return dict(zip(layers, pool.map(decompose, layers), strict=True))
    finally:
        torch.set_num_threads(threads)


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
