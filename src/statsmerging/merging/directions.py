"""Statistics of singular directions: what the learner of directions sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from statsmerging.choices import DirectionFeature
from statsmerging.merging.decomposition import DIRECTION_COLUMNS
from statsmerging.merging.errors import MergingError
from statsmerging.merging.relations import RELATION_COLUMNS, place_statistics
from statsmerging.merging.spectral import SpectralBank
from statsmerging.merging.state_dicts import is_vector
from statsmerging.merging.statistics import LayerStatistics

#: Layer statistics of which the learner sees the logarithm.
_LOGARITHMIC = ("variance", "magnitude", "singular_value_")


@dataclass(frozen=True)
class DirectionStatistics:
    """Statistics of all D directions of a bank, in the order of its coefficients.

    Attributes:
        values: D × F, float32, raw.
        columns: names of the F columns.
        present: D, false for directions beyond the rank of an expert: they have no effect.
        layer: index of each direction's layer, D.
        task: index of each direction's task, D.
        whole: D, true where the direction is a whole task vector (of a bias, a norm …).
        layers: L layer names.
        tasks: K task names.
    """

    values: Tensor
    columns: tuple[str, ...]
    present: Tensor
    layer: Tensor
    task: Tensor
    whole: Tensor
    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    orthonormal: bool

    def select(self, features: Sequence[DirectionFeature]) -> DirectionStatistics:
        """Keep the columns of the given features.

        Raises:
            MergingError: a feature that has no column here, or none at all.
        """
        present = list(dict.fromkeys(map(_feature_of, self.columns)))
        if not features or not set(features) <= set(present):
            raise MergingError(
                f"features={list(features)}: choose at least one of {', '.join(present)}"
            )
        kept = [i for i, column in enumerate(self.columns) if _feature_of(column) in features]
        columns = tuple(self.columns[i] for i in kept)
        return replace(self, values=self.values[:, kept], columns=columns)

    def beside(self, other: LayerStatistics) -> DirectionStatistics:
        """These columns, then those of each direction's layer and expert.

        Args:
            other: of the same layers and tasks; its columns are called ``layer_NAME``, except
                those of its place and its relations. Of those that span orders of magnitude the
                logarithm is taken.

        Raises:
            MergingError: statistics of other layers or tasks.
        """
        if (other.layers, other.tasks) != (self.layers, self.tasks):
            raise MergingError(
                f"statistics of {len(other.layers)} layers of {', '.join(other.tasks)}, beside "
                f"directions of {len(self.layers)} layers of {', '.join(self.tasks)}"
            )
        names = [
            name if _feature_of(name) in ("depth", "kind", "relations") else f"layer_{name}"
            for name in other.columns
        ]
        new = [i for i, name in enumerate(names) if name not in self.columns]
        values = other.values[:, :, new].clone()
        for column, i in enumerate(new):
            if other.columns[i].startswith(_LOGARITHMIC):
                # Of a column of zeros, such as σ₃ of matrices of rank 2, there is no logarithm.
                floor = 1e-12 * float(values[:, :, column].amax()) or 1.0
                values[:, :, column] = values[:, :, column].clamp_min(floor).log()
        values = values.float()[self.layer, self.task]
        return replace(
            self,
            values=torch.cat([self.values, values], dim=1),
            columns=(*self.columns, *(names[i] for i in new)),
        )


def direction_statistics(bank: SpectralBank) -> DirectionStatistics:
    """Statistics of every direction, and the place of its layer.

    - ``singular_value``: log σ.
    - ``relative_value``: σ over the expert's largest in this layer.
    - ``position``: i / r, from 0 for the leading direction.
    - ``energy``: share σ² / ‖T_k‖² of the layer's task vector.
    - ``left_interference``, ``right_interference``: log(1 + e), e the energy of the other experts'
      task vectors along the raw û (v̂) over the expert's own, σ².
    - ``alignment``: û_kiᵀ (Σ_{j≠k} T_j) v̂_ki / σ_ki, within ±1: whether the other experts together
      move the weights the same way along this direction.
    - ``pretrained_energy``: log(1 + e), e the energy of θ₀ along v̂ over its mean along a vector.
    - ``experts``: log K.
    - ``depth`` and ``kind_NAME``: see ``place_statistics``.
    - ``tensor_NAME``: 1 for the directions of this layer.
    """
    sizes = torch.tensor(list(bank.sizes.values()))
    layer = torch.arange(len(sizes)).repeat_interleave(sizes)
    tasks, whole, present, values = [], [], [], []
    for name, parts in bank.directions.items():
        blocks, count = parts.values.shape
        rank = count // len(bank.tasks)
        tasks.append(torch.arange(len(bank.tasks)).repeat_interleave(rank).repeat(blocks))
        whole.append(torch.full((blocks * count,), is_vector(bank.pretrained[name])))
        present.append((parts.values > 0).flatten().cpu())
        values.append(parts.statistics.flatten(end_dim=1))
    one_hot = torch.nn.functional.one_hot(layer, len(sizes)).float()
    statistics = DirectionStatistics(
        torch.cat([torch.cat(values), one_hot], dim=1),
        (*DIRECTION_COLUMNS, *(f"tensor_{name}" for name in bank.layers)),
        torch.cat(present),
        layer,
        torch.cat(tasks),
        torch.cat(whole),
        bank.layers,
        bank.tasks,
        bank.orthonormal,
    )
    return statistics.beside(place_statistics(bank.layers, bank.tasks))


def _feature_of(column: str) -> str:
    """The feature that a column belongs to: several columns may be one."""
    if column.endswith("_interference"):
        return "interference"
    if column in RELATION_COLUMNS:
        return "relations"
    prefixes = ("layer", "kind", "tensor")
    return next((name for name in prefixes if column.startswith(f"{name}_")), column)
