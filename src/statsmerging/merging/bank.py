"""The task-vector bank: the K task vectors of every layer, stored once."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor

from statsmerging.choices import Anchor
from statsmerging.merging.errors import MergingError, check_choice
from statsmerging.merging.kernels import LONG, PLAIN, Kernels
from statsmerging.merging.state_dicts import (
    RUNNING_STATISTICS,
    check_experts,
    mean_over_experts,
    rounding_of,
    split_merged_and_kept,
    summing_type,
    task_vector,
    vector_layers,
)


class MappedFile:
    """A file mapped into memory, writable, overwritten if it exists.

    Attributes:
        tensor: the whole of it, ``numel`` numbers of ``dtype``.
    """

    def __init__(self, path: Path, numel: int, dtype: torch.dtype) -> None:
        path.unlink(missing_ok=True)
        with path.open("wb+") as file:
            file.truncate(numel * dtype.itemsize)
            self._mapping = mmap.mmap(file.fileno(), 0)
        self.tensor = torch.frombuffer(self._mapping, dtype=dtype)

    def release(self, part: Tensor) -> None:
        """Give back the memory of a part of ``tensor``; the file keeps its numbers.

        Nothing happens to tensors that lie elsewhere, nor where the system cannot do it.
        """
        offset = part.data_ptr() - self.tensor.data_ptr()
        if 0 <= offset < self.tensor.nbytes and hasattr(mmap, "MADV_DONTNEED"):
            page = offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._mapping.madvise(mmap.MADV_DONTNEED, page, offset + part.nbytes - page)


#: Place of a coefficient that is the same for every layer.
ALL_LAYERS = "all"


class Coefficient(NamedTuple):
    """One merging coefficient with its place.

    Attributes:
        layer: name of the layer; ``ALL_LAYERS`` if the coefficient is the same for every layer.
        direction: number of the singular direction from 0, and σ; ``None`` for a whole layer.
    """

    layer: str
    task: str
    value: float
    direction: int | None = None
    singular_value: float | None = None


class TaskVectorBank:
    """The pre-trained weights θ₀ and the task vectors of K experts.

    Layer ℓ with n elements is one K × n matrix ``vectors[ℓ]`` of contiguous rows; all layers lie in
    one flat buffer, so K·P numbers exist exactly once, in ``dtype``, on a device, in host memory or
    in a memory-mapped file.

    Tensors that are not merged keep one value (``kept``): integer tensors and tensors that no
    expert changed keep the pre-trained one, running statistics of normalisation layers get the
    mean over the experts.

    Attributes:
        rounding: layer → machine epsilon of the coarsest type in which θ₀ or an expert was
            stored: a weight is known to half of that, whatever the precision of ``vectors``.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        pretrained: dict[str, Tensor],
        vectors: dict[str, Tensor],
        kept: dict[str, Tensor],
        file: MappedFile | None = None,
    ) -> None:
        self.tasks = tasks
        self.pretrained = pretrained
        self.vectors = vectors
        self.kept = kept
        self.file = file
        self.rounding = {name: rounding_of(start) for name, start in pretrained.items()}

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
                tensor by tensor, so a lazily loading mapping keeps the peak memory low. Entries
                that equal θ₀ in an expert's own type are unchanged: a coarser type's rounding is
                no task vector.
            dtype: precision of the stored task vectors (``torch.float32``, ``torch.bfloat16``).
            device: where θ₀ and the task vectors live.
            memory_map: file that holds the task vectors instead of memory; it is overwritten.

        Raises:
            MergingError: fewer than one expert, names or shapes that differ from ``pretrained``,
                NaN or infinite weights (names the tensor), a type that holds no fractions, or a
                memory map for another device.
        """
        if not dtype.is_floating_point:
            raise MergingError(f"dtype={dtype}: choose a floating-point type, e.g. torch.float32")
        if memory_map is not None and torch.device(device).type != "cpu":
            raise MergingError(f"a memory-mapped bank is on the CPU, not on {device}")
        check_experts(pretrained, experts)
        merged, kept = split_merged_and_kept(pretrained, experts)
        vectors, file = empty_vectors(
            {name: tensor.numel() for name, tensor in merged.items()},
            len(experts),
            dtype=dtype,
            device=device,
            memory_map=memory_map,
        )
        bank = cls(
            tuple(experts),
            {name: tensor.to(device) for name, tensor in merged.items()},
            vectors,
            {name: tensor.to(device) for name, tensor in kept.items()},
            file,
        )
        for name, rows in bank.layer_vectors():
            for row, expert in zip(rows, experts.values(), strict=True):
                tuned = expert[name]
                row.copy_(task_vector(merged[name], tuned).flatten())
                bank.rounding[name] = max(bank.rounding[name], rounding_of(tuned))
        return bank

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the merged tensors, in the order of the state dict (length L)."""
        return tuple(self.pretrained)

    @property
    def vector_layers(self) -> frozenset[str]:
        """Names of the layers that are no matrices: biases, norms, tokens."""
        return vector_layers(self.pretrained)

    @property
    def device(self) -> torch.device:
        return next(iter(self.pretrained.values())).device

    def layer_vectors(self) -> Iterator[tuple[str, Tensor]]:
        """Name and task vectors (K × n) of one layer after the other, each released when done."""
        for name in self.layers:
            yield name, self.task_vectors(name)
            self.release(name)

    def task_vectors(self, layer: str) -> Tensor:
        """The task vectors of one layer, K × n."""
        return self.vectors[layer]

    def release(self, layer: str) -> None:
        """Free the memory of a layer of a memory-mapped bank; it is read again when needed."""
        if self.file is not None:
            self.file.release(self.vectors[layer])

    def expert(self, task: str) -> dict[str, Tensor]:
        """State dict θ_k of one expert (a copy of the size of one backbone).

        Tensors that are not merged, running statistics among them, are those of every merged model.

        Raises:
            MergingError: a task the bank does not hold.
        """
        if task not in self.tasks:
            raise MergingError(f"task={task}: choose one of {', '.join(self.tasks)}")
        row = self.tasks.index(task)
        weights = {
            name: self.pretrained[name] + vectors[row].view_as(self.pretrained[name])
            for name, vectors in self.layer_vectors()
        }
        return {**self.kept, **weights}

    @torch.no_grad()
    def merge(self, coefficients: Tensor, anchor: Anchor = "pretrained") -> dict[str, Tensor]:
        """State dict θ(λ) of the merged model, without gradient.

        Args:
            coefficients: λ, L × K (layer-wise) or K (task-wise).
            anchor: ``pretrained`` for θ₀ + Σ_k λ_k T_k, ``none`` for Σ_k λ_k θ_k. Tensors that are
                not merged have no coefficient: they are the same under both.

        Raises:
            MergingError: coefficients of another shape, or an unknown anchor.
        """
        check_choice("anchor", anchor, Anchor)
        weights = {
            name: self.merge_layer(name, row, anchor)
            for row, name in zip(self.split(coefficients), self.layers, strict=True)
        }
        return {**self.kept, **weights}

    def listed(self, coefficients: Tensor) -> list[Coefficient]:
        """λ (L × K or K) one by one."""
        layers = self.layers if coefficients.dim() == 2 else (ALL_LAYERS,)
        rows = coefficients.reshape(-1, len(self.tasks)).tolist()
        return [
            Coefficient(layer, task, value)
            for layer, row in zip(layers, rows, strict=True)
            for task, value in zip(self.tasks, row, strict=True)
        ]

    def split(self, coefficients: Tensor) -> tuple[Tensor, ...]:
        """λ layer by layer, K each, from L × K or from K (the same for every layer)."""
        shape = (len(self.layers), len(self.tasks))
        if coefficients.shape not in (shape, shape[1:]):
            raise MergingError(
                f"coefficients have shape {tuple(coefficients.shape)}, "
                f"expected {shape} or {shape[1:]}"
            )
        return coefficients.to(self.device).expand(shape).unbind(0)

    def merge_layer(
        self, name: str, coefficients: Tensor, anchor: Anchor, kernels: Kernels = PLAIN
    ) -> Tensor:
        """θ^ℓ(λ) of one layer from its K coefficients, in θ₀'s shape."""
        start, vectors = self.pretrained[name], self.vectors[name]
        merged = merge_layer(coefficients, start, vectors, anchor, kernels)
        self.release(name)
        return merged

    def layer_gradient(
        self, name: str, gradient: Tensor, anchor: Anchor, kernels: Kernels = PLAIN
    ) -> Tensor:
        """∂L/∂λ of one layer, K: ⟨G, T_k⟩, or ⟨G, θ_k⟩ without the anchor.

        Args:
            gradient: G = ∂L/∂θ^ℓ, in θ₀'s shape.
        """
        flat = gradient.reshape(-1)
        flat = flat.to(summing_type(flat.dtype))
        products = kernels.inner_products(self.vectors[name], flat)
        self.release(name)
        if anchor == "none":
            start = self.pretrained[name].reshape(-1)
            products = products + torch.dot(start.to(flat), flat)
        return products

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the task vectors, e.g. to another device."""
        self.vectors = {name: fn(rows) for name, rows in self.vectors.items()}


class SomeExperts(TaskVectorBank):
    """Some experts of a bank, in the memory of the whole one.

    It merges like a bank of these experts alone: in each layer the others have λ = 0. Every layer
    of the whole bank stays, also one that none of these experts changed.

    Attributes:
        whole: the bank of all experts.
        places: numbers of these experts in it.

    Args:
        whole: see above.
        experts: task → θ_k of those that stay, as ``from_state_dicts`` was given them; their
            running statistics are averaged anew.

    Raises:
        MergingError: a task that the bank does not hold.
    """

    def __init__(self, whole: TaskVectorBank, experts: Mapping[str, Mapping[str, Tensor]]) -> None:
        missing = [task for task in experts if task not in whole.tasks]
        if missing or not experts:
            raise MergingError(
                f"tasks={', '.join(missing) or 'none'}: choose from {', '.join(whole.tasks)}"
            )
        kept = {
            name: mean_over_experts(name, value, experts)
            if name.endswith(RUNNING_STATISTICS)
            else value
            for name, value in whole.kept.items()
        }
        super().__init__(tuple(experts), whole.pretrained, whole.vectors, kept, whole.file)
        self.rounding = whole.rounding
        self.whole = whole
        self.places = [whole.tasks.index(task) for task in experts]

    def task_vectors(self, layer: str) -> Tensor:
        """The task vectors of one layer, K' × n: a copy, which dies with its use."""
        return self.vectors[layer][self.places]

    def split(self, coefficients: Tensor) -> tuple[Tensor, ...]:
        """λ (L × K' or K') layer by layer, with 0 for the experts of the whole bank that left."""
        rows = torch.stack(super().split(coefficients))
        spread = rows.new_zeros(len(rows), len(self.whole.tasks))
        places = torch.tensor(self.places, device=rows.device)
        return spread.index_copy(1, places, rows).unbind(0)

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Follow the whole bank, which has been moved."""
        del fn
        self.vectors = self.whole.vectors


def empty_vectors(
    sizes: Mapping[str, int],
    tasks: int,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    memory_map: Path | None = None,
) -> tuple[dict[str, Tensor], MappedFile | None]:
    """Room for the task vectors of every layer, K × n each, and the file that holds it if any.

    Args:
        sizes: n of every layer.
        tasks: K.
    """
    strides = {name: _row_stride(size, dtype) for name, size in sizes.items()}
    numel = tasks * sum(strides.values())
    file = None if memory_map is None else MappedFile(memory_map, numel, dtype)
    storage = torch.empty(numel, dtype=dtype, device=device) if file is None else file.tensor
    parts = storage.split([tasks * stride for stride in strides.values()])
    return {
        name: part.view(tasks, -1)[:, :size]
        for (name, size), part in zip(sizes.items(), parts, strict=True)
    }, file


def _row_stride(size: int, dtype: torch.dtype) -> int:
    """Elements from one row to the next.

    Rows whose distance is a multiple of a page, as the sizes of layers nearly always are, compete
    for the same few places of a CPU's cache, and a pass over several rows at once runs at half the
    memory's speed. Long rows are padded by five cache lines (320 bytes).
    """
    return size if size < LONG else size + 5 * 64 // dtype.itemsize


def merge_layer(
    coefficients: Tensor,
    pretrained: Tensor,
    vectors: Tensor,
    anchor: Anchor,
    kernels: Kernels = PLAIN,
) -> Tensor:
    """θ₀ + Σ_k λ_k T_k of one layer (``anchor="none"``: Σ_k λ_k (θ₀ + T_k)), in θ₀'s shape.

    In half precision too, the sum is one in float32 that is rounded once.

    Args:
        coefficients: K.
        pretrained: θ₀ of the layer, any shape of n elements.
        vectors: K × n.
    """
    wide = pretrained.to(summing_type(pretrained.dtype))
    factors = coefficients.to(wide.dtype)
    start = wide if anchor == "pretrained" else wide * factors.sum()
    merged = kernels.weighted_sum(start.reshape(-1), factors, vectors)
    return merged.view_as(pretrained).to(pretrained.dtype)
