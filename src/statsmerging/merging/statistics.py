"""Statistics of every layer of every expert: what the learner sees (paper section 3.2).

Per layer ℓ and expert k: S = [mean, variance, magnitude, σ'₁ … σ'_r] of the weight matrix, where
a convolution is taken as out × rest and a vector as 1 × n. Computed once, never in a training
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from statsmerging.choices import Feature, Source, Standardise
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError, check_choice
from statsmerging.merging.side_by_side import side_by_side
from statsmerging.merging.singular_vectors import leading_singular_values
from statsmerging.merging.state_dicts import matrix_shape

#: Columns of a feature that has several: their names' common beginning.
_PREFIXES: dict[str, Feature] = {"singular_value_": "singular_values", "kind_": "kind"}


#: Numbers that are in memory in float64 at once: experts of large layers come one by one.
AT_ONCE = 1 << 21


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics S of L layers of K experts.

    Attributes:
        values: L × K × F, float64. Raw or standardised.
        columns: name of each of the F columns: ``mean``, ``variance``, ``magnitude``,
            ``singular_value_1`` …
        layers: L layer names.
        tasks: K task names.
        vectors: those of the layers that are no matrices: biases, norms, tokens.
    """

    values: Tensor
    columns: tuple[str, ...]
    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    vectors: frozenset[str] = frozenset()

    def select(self, features: Sequence[Feature]) -> LayerStatistics:
        """Keep the columns of the given features (all singular values are one feature).

        Raises:
            MergingError: a feature that is not among the columns, or none at all.
        """
        present = list(dict.fromkeys(map(_feature_of, self.columns)))
        if not features or not set(features) <= set(present):
            raise MergingError(
                f"features={list(features)}: choose at least one of {', '.join(present)}"
            )
        kept = [i for i, column in enumerate(self.columns) if _feature_of(column) in features]
        return replace(
            self, values=self.values[:, :, kept], columns=tuple(self.columns[i] for i in kept)
        )

    def of(self, tasks: Sequence[str]) -> LayerStatistics:
        """The rows of some experts, in the given order; those that compare experts stay as well."""
        rows = [self.tasks.index(task) for task in tasks]
        return replace(self, values=self.values[:, rows], tasks=tuple(tasks))

    def beside(self, other: LayerStatistics) -> LayerStatistics:
        """These columns, then those of other statistics of the same layers and experts."""
        return replace(
            self,
            values=torch.cat([self.values, other.values], dim=2),
            columns=(*self.columns, *other.columns),
        )

    def pooled(self) -> LayerStatistics:
        """The mean over layers: one vector per expert (1 × K × F), for task-wise merging."""
        return replace(self, values=self.values.mean(dim=0, keepdim=True), layers=("all",))

    def standardised(self, over: Standardise) -> LayerStatistics:
        """Zero mean and unit variance per column; a constant column becomes zero.

        Args:
            over: ``global`` over all (ℓ, k), which tells layers apart; ``per_layer`` within a
                layer across its experts, which tells experts apart although every θ_k is close
                to θ₀; ``both`` puts the two side by side (2F columns).

        Raises:
            MergingError: an unknown ``over``.
        """
        check_choice("over", over, Standardise)
        if over == "global":
            return replace(self, values=_standardise(self.values, dims=(0, 1)))
        if over == "per_layer":
            return replace(self, values=_standardise(self.values, dims=(1,)))
        return replace(
            self,
            values=torch.cat(
                [self.standardised("global").values, self.standardised("per_layer").values], dim=2
            ),
            columns=(
                *(f"{column}_global" for column in self.columns),
                *(f"{column}_per_layer" for column in self.columns),
            ),
        )


def layer_statistics(
    bank: TaskVectorBank, *, of: Source = "weights", rank: int = 3
) -> LayerStatistics:
    """Raw statistics of every layer of every expert in the bank.

    Args:
        of: ``weights`` for θ_k (the paper), ``task_vectors`` for T_k (the released code).
        rank: number r of leading singular values, zero-padded where a matrix has fewer.

    Raises:
        MergingError: an unknown ``of``, or a ``rank`` below 1.
    """
    check_choice("of", of, Source)
    if rank < 1:
        raise MergingError(f"rank={rank}: must be at least 1")

    @torch.no_grad()  # a thread has its own mode
    def of_layer(name: str) -> Tensor:
        pretrained = bank.pretrained[name]
        found = []
        for some in bank.task_vectors(name).split(max(1, AT_ONCE // pretrained.numel())):
            matrices = some.to(torch.float64, copy=True)
            if of == "weights":
                matrices += pretrained.flatten()
            found.append(matrix_statistics(matrices.view(-1, *matrix_shape(pretrained)), rank))
        bank.release(name)
        return torch.cat(found)

    rows = side_by_side(of_layer, bank.layers, bank.device)
    return LayerStatistics(
        torch.stack(tuple(rows.values())).cpu(),
        statistic_columns(rank),
        bank.layers,
        bank.tasks,
        bank.vector_layers,
    )


def statistic_columns(rank: int) -> tuple[str, ...]:
    """Names of the raw statistics' columns for the given number of singular values."""
    return ("mean", "variance", "magnitude", *(f"singular_value_{i + 1}" for i in range(rank)))


def matrix_statistics(matrices: Tensor, rank: int) -> Tensor:
    """[mean, variance, Frobenius norm, top singular values] of K matrices: K × m × n → K × (3 + r).

    The variance is the population variance (divided by m·n).
    """
    flat = matrices.flatten(start_dim=1)
    return torch.cat(
        [
            flat.mean(dim=1, keepdim=True),
            flat.var(dim=1, keepdim=True, correction=0),
            torch.linalg.vector_norm(flat, dim=1, keepdim=True),
            top_singular_values(matrices, rank),
        ],
        dim=1,
    )


def top_singular_values(matrices: Tensor, rank: int) -> Tensor:
    """The r largest singular values of K matrices, K × m × n → K × r, zero-padded."""
    few = min(rank, *matrices.shape[1:])
    values = leading_singular_values(matrices, few)
    return torch.nn.functional.pad(values, (0, rank - few))


def _feature_of(column: str) -> str:
    return next((name for prefix, name in _PREFIXES.items() if column.startswith(prefix)), column)


def _standardise(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    centred = values - values.mean(dim=dims, keepdim=True)
    deviation = centred.square().mean(dim=dims, keepdim=True).sqrt()
    # Rounding leaves a constant column a deviation of about 1e-16 of its size: that is no signal.
    noise = 1e-12 * values.abs().amax(dim=dims, keepdim=True)
    return torch.where(deviation > noise, centred / deviation.clamp_min(1e-300), 0.0)
