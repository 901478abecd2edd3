"""Weights in and out: safetensors only, checked before anything uses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.merging.task_vectors import check_finite
from statsmerging.records.errors import UserError
from statsmerging.records.files import atomic_path


def read_weights(path: Path) -> dict[str, Tensor]:
    """State dict from a safetensors file, memory-mapped: a tensor is read when it is used.

    Raises:
        UserError: no such file, not safetensors, or cut short.
        MergingError: NaN or infinite weights (names the tensor).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path}: weights are read from .safetensors files only; job=convert makes one"
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    check_finite(state, found=str(path))
    return state


def write_weights(
    path: Path, state: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None
) -> None:
    """Write a state dict as safetensors, atomically.

    Args:
        metadata: entries of the file's header, for readers that look for them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata)
