"""Task vectors of K experts, stored once: per layer one contiguous K × n matrix.

Task vector: T_k = θ_k − θ₀ (Ilharco et al., *Editing Models with Task Arithmetic*, ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from statsmerging.merging.errors import MergingError

Anchor = Literal["pretrained", "none"]

#: Columns converted at a time when a bank is stored in a lower precision than it is used in.
CHUNK = 1 << 16

_RUNNING_STATISTICS = ("running_mean", "running_var")


class TaskVectorBank:
    """The pre-trained weights θ₀ and the task vectors of K experts.

    Layer ℓ with n elements is one contiguous K × n matrix ``vectors[ℓ]``; all layers lie in one
    flat buffer, so K·P numbers exist exactly once, in ``dtype``, on a device, in host memory or
    in a memory-mapped file.

    Tensors that are not merged keep one value (``kept``): integer tensors and tensors that no
    expert changed keep the pre-trained one, running statistics of normalisation layers get the
    mean over the experts.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        pretrained: dict[str, Tensor],
        vectors: dict[str, Tensor],
        kept: dict[str, Tensor],
    ) -> None:
        self.tasks = tasks
        self.pretrained = pretrained
        self.vectors = vectors
        self.kept = kept

    @classmethod
    def from_state_dicts(
        cls,
        pretrained: Mapping[str, Tensor],
        experts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory_map: Path | None = None,
    ) -> Self:
        """Build the bank from one pre-trained and K fine-tuned state dicts.

        Args:
            pretrained: θ₀ by tensor name. Its tensors are referenced, not copied.
            experts: task name → θ_k, with the names and shapes of ``pretrained``. They are read
                tensor by tensor, so a lazily loading mapping keeps the peak memory low.
            dtype: precision of the stored task vectors (``torch.float32``, ``torch.bfloat16``).
            device: where θ₀ and the task vectors live.
            memory_map: file that holds the task vectors instead of memory; it is overwritten.

        Raises:
            MergingError: fewer than one expert, names or shapes that differ from ``pretrained``,
                NaN or infinite weights (names the tensor), or a memory map for another device.
        """
        if memory_map is not None and torch.device(device).type != "cpu":
            raise MergingError(f"a memory-mapped bank is on the CPU, not on {device}")
        if not experts:
            raise MergingError("there is no expert to merge")
        for task, expert in experts.items():
            check_same_tensors(pretrained, expert, expected="pre-trained", found=f"expert {task}")
            check_finite(expert, found=f"expert {task}")
        check_finite(pretrained, found="pre-trained model")

        merged, kept = _split_merged_and_kept(pretrained, experts)
        storage = _allocate(
            len(experts) * sum(tensor.numel() for tensor in merged.values()),
            dtype=dtype,
            device=device,
            memory_map=memory_map,
        )
        vectors: dict[str, Tensor] = {}
        offset = 0
        for name, start in merged.items():
            rows = storage[offset : offset + len(experts) * start.numel()].view(len(experts), -1)
            for row, expert in zip(rows, experts.values(), strict=True):
                row.copy_((expert[name].detach().to(start) - start).flatten())
            vectors[name] = rows
            offset += rows.numel()
        return cls(
            tuple(experts),
            {name: tensor.to(device) for name, tensor in merged.items()},
            vectors,
            {name: tensor.to(device) for name, tensor in kept.items()},
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the merged tensors, in the order of the state dict (length L)."""
        return tuple(self.pretrained)

    @property
    def device(self) -> torch.device:
        return next(iter(self.pretrained.values())).device

    def expert(self, task: str) -> dict[str, Tensor]:
        """State dict θ_k of one expert (a copy of the size of one backbone)."""
        row = self.tasks.index(task)
        weights = {
            name: start + self.vectors[name][row].to(start.dtype).view_as(start)
            for name, start in self.pretrained.items()
        }
        return {**self.kept, **weights}

    @torch.no_grad()
    def merge(self, coefficients: Tensor, anchor: Anchor = "pretrained") -> dict[str, Tensor]:
        """State dict θ(λ) of the merged model, without gradient.

        Args:
            coefficients: λ, L × K (layer-wise) or K (task-wise).
            anchor: ``pretrained`` for θ₀ + Σ_k λ_k T_k, ``none`` for Σ_k λ_k θ_k.
        """
        rows = self.layer_coefficients(coefficients)
        weights = {
            name: merge_layer(row, start, self.vectors[name], anchor)
            for row, (name, start) in zip(rows, self.pretrained.items(), strict=True)
        }
        return {**self.kept, **weights}

    def layer_coefficients(self, coefficients: Tensor) -> Tensor:
        """λ as L × K, from L × K or from K (the same for every layer)."""
        shape = (len(self.layers), len(self.tasks))
        if coefficients.shape not in (shape, shape[1:]):
            raise MergingError(
                f"coefficients have shape {tuple(coefficients.shape)}, "
                f"expected {shape} or {shape[1:]}"
            )
        return coefficients.to(self.device).expand(shape)


def merge_layer(
    coefficients: Tensor, pretrained: Tensor, vectors: Tensor, anchor: Anchor
) -> Tensor:
    """θ₀ + Σ_k λ_k T_k of one layer (``anchor="none"``: Σ_k λ_k (θ₀ + T_k)), in θ₀'s shape.

    Args:
        coefficients: K.
        pretrained: θ₀ of the layer, any shape of n elements.
        vectors: K × n.
    """
    weights = coefficients.to(pretrained.dtype)
    merged = pretrained.clone() if anchor == "pretrained" else pretrained * weights.sum()
    flat = merged.view(1, -1)
    if vectors.dtype == pretrained.dtype:
        flat.addmm_(weights.view(1, -1), vectors)
    else:
        for start in range(0, vectors.shape[1], CHUNK):
            columns = vectors[:, start : start + CHUNK].to(weights.dtype)
            flat[:, start : start + CHUNK].addmm_(weights.view(1, -1), columns)
    return merged


def matrix_shape(layer: Tensor) -> tuple[int, int]:
    """Shape of a layer as a matrix: one stays, a convolution is out × rest, a vector 1 × n."""
    return (1, layer.numel()) if layer.dim() < 2 else (layer.shape[0], layer[0].numel())


def check_same_tensors(
    reference: Mapping[str, Tensor], state: Mapping[str, Tensor], *, expected: str, found: str
) -> None:
    """Raise ``MergingError`` unless both hold the same names with the same shapes.

    The message shows the first three differences, with both shapes.
    """

    def shape(tensors: Mapping[str, Tensor], name: str) -> str:
        return str(tuple(tensors[name].shape)) if name in tensors else "missing"

    names = [*reference, *(name for name in state if name not in reference)]
    differences = [name for name in names if shape(reference, name) != shape(state, name)]
    if differences:
        shown = "; ".join(
            f"{name}: {expected} {shape(reference, name)}, {found} {shape(state, name)}"
            for name in differences[:3]
        )
        raise MergingError(f"{found} does not match in {len(differences)} tensor(s): {shown}")


def check_finite(state: Mapping[str, Tensor], *, found: str) -> None:
    """Raise ``MergingError`` naming the first tensor that holds a NaN or an infinity."""
    for name in state:
        tensor = state[name]
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise MergingError(f"{found}: tensor {name} holds NaN or infinite values")


def _split_merged_and_kept(
    pretrained: Mapping[str, Tensor], experts: Mapping[str, Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    merged: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, value in pretrained.items():
        start = value.detach()
        changed = any(not torch.equal(expert[name].to(start), start) for expert in experts.values())
        if not changed or not start.is_floating_point():
            kept[name] = start
        elif name.endswith(_RUNNING_STATISTICS):
            kept[name] = torch.stack([expert[name].to(start) for expert in experts.values()]).mean(
                0
            )
        else:
            merged[name] = start.contiguous()
    if not merged:
        raise MergingError("the experts equal the pre-trained model in every tensor")
    return merged, kept


def _allocate(
    numel: int, *, dtype: torch.dtype, device: torch.device | str, memory_map: Path | None
) -> Tensor:
    if memory_map is None:
        return torch.empty(numel, dtype=dtype, device=device)
    memory_map.unlink(missing_ok=True)
    return torch.from_file(str(memory_map), shared=True, size=numel, dtype=dtype)
