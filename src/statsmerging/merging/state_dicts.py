"""Weights as state dicts: what is checked, merged and kept when they enter a bank."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from statsmerging.merging.errors import MergingError

#: Messages cut tensor names after this many characters.
_LONGEST_NAME = 80

#: Ends of the names of running statistics: of them the experts' mean is kept.
RUNNING_STATISTICS = ("running_mean", "running_var")


def summing_type(dtype: torch.dtype) -> torch.dtype:
    """The type in which numbers of the given type are added up: float32 or finer."""
    return torch.promote_types(dtype, torch.float32)


def matrix_shape(layer: Tensor) -> tuple[int, int]:
    """Shape of a layer as a matrix: one stays, a convolution is out × rest, a vector 1 × n."""
    return (1, layer.numel()) if layer.dim() < 2 else (layer.shape[0], layer[0].numel())


def is_vector(layer: Tensor) -> bool:
    """Whether a layer has one row or column as a matrix: biases, norms, tokens."""
    return min(matrix_shape(layer)) == 1


def vector_layers(layers: Mapping[str, Tensor]) -> frozenset[str]:
    """Names of the layers that are no matrices."""
    return frozenset(name for name, layer in layers.items() if is_vector(layer))


def check_experts(
    pretrained: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Raise ``MergingError`` unless there are experts with θ₀'s tensors, and all are finite."""
    if not experts:
        raise MergingError("there is no expert to merge")
    for task, expert in experts.items():
        check_same_tensors(pretrained, expert, expected="pre-trained", found=f"expert {task}")
        check_finite(expert, found=f"expert {task}")
    check_finite(pretrained, found="pre-trained model")


def check_same_tensors(
    reference: Mapping[str, Tensor], state: Mapping[str, Tensor], *, expected: str, found: str
) -> None:
    """Raise ``MergingError`` unless both hold the same names with the same shapes.

    The message shows the first three differences, with both shapes.
    """

    def shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
        return tensors[name].shape if name in tensors else None

    def told(size: torch.Size | None) -> str:
        if size is None:
            return "missing"
        return str(tuple(size)) if len(size) < 10 else f"of {len(size)} dimensions"

    names = [*reference, *(name for name in state if name not in reference)]
    shapes = ((name, shape(reference, name), shape(state, name)) for name in names)
    differences = [(name, ours, theirs) for name, ours, theirs in shapes if ours != theirs]
    if differences:
        # A name comes from a file, and may hold what moves the cursor of a terminal.
        shown = "; ".join(
            f"{name[:_LONGEST_NAME]!r}: {expected} {told(ours)}, {found} {told(theirs)}"
            for name, ours, theirs in differences[:3]
        )
        raise MergingError(f"{found} does not match in {len(differences)} tensor(s): {shown}")


def check_finite(state: Mapping[str, Tensor], *, found: str) -> None:
    """Raise ``MergingError`` naming the first tensor that holds a NaN or an infinity."""
    for name in state:
        tensor = state[name]
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise MergingError(
                f"{found}: tensor {name[:_LONGEST_NAME]!r} holds NaN or infinite values"
            )


def task_vector(start: Tensor, tuned: Tensor) -> Tensor:
    """θ_k − θ₀ on θ₀'s device, in the finer of their types; 0 where θ_k is θ₀ in θ_k's own type."""
    dtype = torch.promote_types(start.dtype, tuned.dtype)
    rounded = start.to(tuned.dtype).to(dtype)
    fine = tuned.detach().to(start.device, dtype)
    return torch.where(fine == rounded, 0, fine - start.to(dtype))


def rounding_of(stored: Tensor) -> float:
    """Machine epsilon of the tensor's type; 0 for whole numbers."""
    return torch.finfo(stored.dtype).eps if stored.is_floating_point() else 0.0


def split_merged_and_kept(
    pretrained: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """θ₀ of the tensors that are merged, and the values of those that are not.

    Raises:
        MergingError: no expert changed anything.
    """
    merged: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, value in pretrained.items():
        start = value.detach()
        if not start.is_floating_point() or not any(
            bool(task_vector(start, expert[name]).any()) for expert in experts.values()
        ):
            kept[name] = start
        elif name.endswith(RUNNING_STATISTICS):
            kept[name] = mean_over_experts(name, start, experts)
        else:
            merged[name] = start.contiguous()
    if not merged:
        raise MergingError("the experts equal the pre-trained model in every tensor")
    return merged, kept


def mean_over_experts(
    name: str, like: Tensor, experts: Mapping[str, Mapping[str, Tensor]]
) -> Tensor:
    """Mean of one tensor of the experts, on the device and in the type of ``like``."""
    wide = like.to(summing_type(like.dtype))
    return torch.stack([expert[name].to(wide) for expert in experts.values()]).mean(0).to(like)
