"""KnOTS: TIES-Merging in the joint singular basis of the task matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.base import DataFreeMethod, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, layer_noise, stored_rows
from statsmerging.merging.methods.ties import TIES_SCALES, elected_means
from statsmerging.merging.singular_vectors import joint_left_vectors
from statsmerging.merging.state_dicts import is_vector, matrix_shape


@dataclass(frozen=True)
class Knots(DataFreeMethod):
    """KnOTS-TIES (Stoica et al., *Model Merging with SVD to Tie the Knots*, ICLR 2025).

    With the joint SVD [T_1 … T_K] = U Σ [V_1ᵀ … V_Kᵀ] of a layer's m × n task matrices, the parts
    Σ V_kᵀ = Uᵀ T_k are merged by TIES, its trimming over all layers together, and the update is
    λ U times the result. As in the released code, Σ is on V_k before the trimming. U has the rank r
    of the task matrices together: low-rank (LoRA) experts have r n entries in a layer, not m n.
    Experts of full rank have m n of them, as many as TIES, in a rotated basis. Directions that
    rounding alone may have made are left out.

    Convolutions are out × rest. Vectors are their own basis: they enter as in TIES. The released
    code puts a bias beside its weight as one more column, and the weight of a norm on a diagonal.
    One expert at ``density=1, scale=1`` gives that expert, to rounding.

    Args:
        density: share of entries kept of each expert; 0.2 in the released configuration.
        scale: λ; 0.6 in the released configuration for ViT-B/32, tuned in the paper.
    """

    name = "knots"
    title = "KnOTS"
    tunable = TIES_SCALES

    density: float = parameter(0.2, above=0, at_most=1)
    scale: float = parameter(0.6, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"density": 1.0, "scale": 1.0}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        stored = stored_rows(bank)
        bases = joint_bases(bank)

        def rotated(layer: str) -> Tensor:
            rows = stored(layer)
            if layer not in bases:
                return rows
            matrices = rows.view(-1, *matrix_shape(bank.pretrained[layer]))
            return (bases[layer].mT @ matrices).flatten(1)

        sizes = {
            layer: bases[layer].shape[1] * start[0].numel() if layer in bases else start.numel()
            for layer, start in bank.pretrained.items()
        }
        elected = elected_means(rotated, sizes, self.density)

        def update(layer: str) -> Tensor:
            merged = self.scale * elected(layer)
            if layer not in bases:
                return merged
            basis = bases[layer]
            return basis @ merged.view(basis.shape[1], bank.pretrained[layer][0].numel())

        return add_to_pretrained(bank, update)


def joint_bases(bank: TaskVectorBank) -> dict[str, Tensor]:
    """Layer → U, m × r, of all layers but vectors."""
    bases = {}
    for layer, start in bank.pretrained.items():
        if not is_vector(start):
            rows = stored_rows(bank)(layer)
            matrices = rows.view(-1, *matrix_shape(start))
            bases[layer] = joint_left_vectors(matrices, layer_noise(bank, layer, rows))
    return bases
