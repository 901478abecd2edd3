"""Reading evidence that was collected elsewhere: task → layer → tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import Evidence


def check_evidence(bank: TaskVectorBank, evidence: Evidence) -> None:
    """Raise ``MergingError`` unless there is evidence of every task for some merged layer."""
    for task in bank.tasks:
        if task not in evidence:
            raise MergingError(f"there is no evidence for task {task}")
        if not evidence[task].keys() & bank.pretrained.keys():
            raise MergingError(f"the evidence for task {task} names none of the merged layers")


def layer_evidence(
    bank: TaskVectorBank, evidence: Evidence, layer: str, shape: tuple[int, ...]
) -> list[Tensor] | None:
    """The K tensors for a layer in the order of the bank's tasks; None if there are none.

    Raises:
        MergingError: only some tasks have evidence for the layer, or a tensor of another shape
            or with NaN or infinite values.
    """
    present = [task for task in bank.tasks if layer in evidence[task]]
    if not present:
        return None
    found = []
    for task in bank.tasks:
        if task not in present:
            raise MergingError(f"{layer!r}: evidence for task {present[0]}, but none for {task}")
        tensor = evidence[task][layer]
        if tuple(tensor.shape) != shape:
            raise MergingError(
                f"{layer!r}: evidence for task {task} has shape {tuple(tensor.shape)}, "
                f"expected {shape}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise MergingError(f"{layer!r}: evidence for task {task} has NaN or infinite values")
        found.append(tensor.to(bank.device))
    return found
