"""Weights in and out: safetensors only, checked before anything uses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from statsmerging.merging.task_vectors import check_finite
from statsmerging.records.errors import printable
from statsmerging.records.files import atomic_path
from statsmerging.zoo.weights import FileTensors, Weights


def read_weights(path: Path) -> Weights:
    """State dict in a safetensors file; a tensor is read whenever it is used.

    Raises:
        UserError: no such file, not safetensors, or cut short.
        MergingError: NaN or infinite weights (names the tensor).
    """
    weights = Weights(FileTensors(path))
    check_finite(weights, found=printable(str(path)))
    return weights


def write_weights(
    path: Path, state: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None
) -> None:
    """Write a state dict as safetensors, atomically.

    Args:
        metadata: entries of the file's header, for readers that look for them.
    """
    tensors: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        # Of two names of one tensor, which safetensors does not store, each gets its own copy.
        twin = tensor.numel() > 0 and tensor.data_ptr() in written
        tensors[name] = tensor.clone() if twin else tensor
        written.add(tensor.data_ptr())
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata)
