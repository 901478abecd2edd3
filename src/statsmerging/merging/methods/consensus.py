"""Consensus merging: keep the entries that matter for several tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import DataFreeMethod, parameter
from statsmerging.merging.methods.layers import add_to_pretrained, stored_rows
from statsmerging.merging.methods.tall_masks import tall_mask
from statsmerging.merging.methods.task_arithmetic import TASK_ARITHMETIC_SCALES


@dataclass(frozen=True)
class Consensus(DataFreeMethod):
    """Consensus merging with TALL masks (Wang et al., *Localizing Task Information for Improved
    Model Merging and Compression*, ICML 2024), on task arithmetic.

    With the sum T = Σ_k T_k, task k's TALL mask holds the entries where |T_k| > λ |T − T_k|,
    i.e. where the sum stays close to the expert. Entries in fewer than ``agreement`` masks are
    removed from T (used by one task alone, or by none); the rest is scaled and added to θ₀. All
    tensors are treated alike.

    Args:
        mask_strictness: λ of the masks, the same for all tasks; the authors choose it per task
            from 0.2, 0.3 … 0.6 by validation, here it is the middle.
        agreement: masks an entry must be in; 2 in the paper. At most the number of experts.
        scale: factor on what is left; tuned in the paper as in task arithmetic.
    """

    name = "consensus"
    title = "Consensus"
    tunable = TASK_ARITHMETIC_SCALES

    mask_strictness: float = parameter(0.4, at_least=0)
    agreement: int = parameter(2, at_least=1)
    scale: float = parameter(0.3, at_least=0)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        return {"agreement": min(copies, 2), "scale": 1 / copies}

    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        tasks = len(bank.tasks)
        if self.agreement > tasks:
            raise MergingError(
                f"consensus.agreement={self.agreement}: must be at most the number of experts, "
                f"{tasks}, or nothing is left of them"
            )
        rows = stored_rows(bank)

        def update(layer: str) -> Tensor:
            vectors = rows(layer)
            total = vectors.sum(dim=0)
            masks = tall_mask(vectors, total, self.mask_strictness)
            return self.scale * torch.where(masks.sum(dim=0) >= self.agreement, total, 0)

        return add_to_pretrained(bank, update)
