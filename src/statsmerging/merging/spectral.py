"""The spectral bank: θ₀ and the leading singular directions of K task vectors.

Where ``TaskVectorBank`` has one coefficient per layer and expert, here every singular direction of
every task matrix has its own: θ^ℓ = θ₀^ℓ + Σ_k Σ_i λ_{k,i} σ_{k,i} û_{k,i} v̂_{k,i}ᵀ. The directions
are those of TSV-M (Gargiulo et al., *Task Singular Vectors*, CVPR 2025), which is λ = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

import torch
from torch import Tensor

from statsmerging.choices import Anchor
from statsmerging.merging.bank import Coefficient, TaskVectorBank
from statsmerging.merging.decomposition import Decomposition, Directions, decompose_layer
from statsmerging.merging.errors import MergingError
from statsmerging.merging.kernels import PLAIN, Kernels
from statsmerging.merging.side_by_side import side_by_side
from statsmerging.merging.state_dicts import (
    check_experts,
    split_merged_and_kept,
    summing_type,
    vector_layers,
)


class SpectralBank:
    """The pre-trained weights θ₀ and the leading singular directions of K task vectors.

    It holds about min(m, n)·(m + n) numbers per m × n layer, whatever K is. Tensors of two or more
    dimensions are matrices, a convolution as out × rest; any other layer, such as a bias, is one
    direction per expert: its whole task vector.

    Coefficients λ are a vector with one number per direction: layer by layer, block by block, task
    by task, from the largest singular value down.

    Attributes:
        tasks: K task names.
        pretrained: θ₀ of the merged layers by name.
        kept: tensors that are not merged, see ``TaskVectorBank``.
        directions: layer → its directions.
        orthonormal: see ``Decomposition``.
    """

    def __init__(
        self,
        tasks: tuple[str, ...],
        pretrained: dict[str, Tensor],
        kept: dict[str, Tensor],
        directions: dict[str, Directions],
        *,
        orthonormal: bool = True,
    ) -> None:
        self.tasks = tasks
        self.pretrained = pretrained
        self.kept = kept
        self.directions = directions
        self.orthonormal = orthonormal
        if not any(bool(each.values.any()) for each in directions.values()):
            raise MergingError("the experts differ from the pre-trained model by rounding alone")

    @classmethod
    def from_state_dicts(
        cls,
        pretrained: Mapping[str, Tensor],
        experts: Mapping[str, Mapping[str, Tensor]],
        decomposition: Decomposition | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> SpectralBank:
        """Decompose K experts; the task vectors of a few layers exist at a time.

        Args:
            pretrained: θ₀ by tensor name.
            experts: task name → θ_k, with the names and shapes of ``pretrained``.
            decomposition: ``None`` for the defaults.
            device: where the directions are computed and live.

        Raises:
            MergingError: see ``TaskVectorBank.from_state_dicts``; or experts that differ from
                ``pretrained`` by rounding alone.
        """
        check_experts(pretrained, experts)
        decomposition = decomposition or Decomposition()
        merged, kept = split_merged_and_kept(pretrained, experts)
        reading = Lock()

        def decompose(name: str) -> Directions:
            with reading:  # a mapping that reads from a file does one thing at a time
                layer = TaskVectorBank.from_state_dicts(
                    {name: merged[name]},
                    {task: {name: state[name]} for task, state in experts.items()},
                    device=device,
                )
            return decompose_layer(layer, name, decomposition)

        return cls(
            tuple(experts),
            {name: tensor.to(device) for name, tensor in merged.items()},
            {name: tensor.to(device) for name, tensor in kept.items()},
            side_by_side(decompose, tuple(merged), torch.device(device)),
            orthonormal=decomposition.orthonormal,
        )

    @classmethod
    def from_bank(
        cls, bank: TaskVectorBank, decomposition: Decomposition | None = None
    ) -> SpectralBank:
        """The directions of the task vectors of a bank, on its device.

        Raises:
            MergingError: experts that differ from the pre-trained model by rounding alone.
        """
        decomposition = decomposition or Decomposition()

        def decompose(name: str) -> Directions:
            directions = decompose_layer(bank, name, decomposition)
            bank.release(name)
            return directions

        return cls(
            bank.tasks,
            bank.pretrained,
            bank.kept,
            side_by_side(decompose, bank.layers, bank.device),
            orthonormal=decomposition.orthonormal,
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the merged tensors, in the order of the state dict (length L)."""
        return tuple(self.pretrained)

    @property
    def vector_layers(self) -> frozenset[str]:
        """Names of the layers whose directions are whole task vectors."""
        return vector_layers(self.pretrained)

    @property
    def device(self) -> torch.device:
        return next(iter(self.pretrained.values())).device

    @property
    def sizes(self) -> dict[str, int]:
        """Layer → the number of its directions, B · K · r."""
        return {name: each.values.numel() for name, each in self.directions.items()}

    @torch.no_grad()
    def merge(self, coefficients: Tensor, anchor: Anchor = "pretrained") -> dict[str, Tensor]:
        """State dict θ(λ) of the merged model, without gradient.

        Args:
            coefficients: λ, one per direction.
            anchor: ``pretrained``; without θ₀ there are no singular directions.

        Raises:
            MergingError: another number of coefficients, or ``anchor="none"``.
        """
        check_anchored(anchor)
        weights = {
            name: self.merge_layer(name, row)
            for row, name in zip(self.split(coefficients), self.layers, strict=True)
        }
        return {**self.kept, **weights}

    def listed(self, coefficients: Tensor) -> list[Coefficient]:
        """λ one by one, without those of directions beyond an expert's rank.

        Several blocks of a layer are called ``NAME[0]``, ``NAME[1]`` …
        """
        listed = []
        for row, (name, parts) in zip(
            self.split(coefficients.cpu()), self.directions.items(), strict=True
        ):
            blocks, tasks = len(parts.values), len(self.tasks)
            values = row.view(blocks, tasks, -1).tolist()
            spectra = parts.values.view(blocks, tasks, -1).tolist()
            listed += [
                Coefficient(
                    f"{name}[{block}]" if blocks > 1 else name, task, value, direction, sigma
                )
                for block in range(blocks)
                for k, task in enumerate(self.tasks)
                for direction, (value, sigma) in enumerate(
                    zip(values[block][k], spectra[block][k], strict=True)
                )
                if sigma > 0
            ]
        return listed

    def split(self, coefficients: Tensor) -> tuple[Tensor, ...]:
        """λ layer by layer, in the order of ``layers``."""
        sizes = list(self.sizes.values())
        if coefficients.shape != (sum(sizes),):
            raise MergingError(
                f"coefficients have shape {tuple(coefficients.shape)}, expected ({sum(sizes)},)"
            )
        return torch.split(coefficients.to(self.device), sizes)

    def merge_layer(
        self,
        name: str,
        coefficients: Tensor,
        anchor: Anchor = "pretrained",
        kernels: Kernels = PLAIN,
    ) -> Tensor:
        """θ₀ + left · diag(λ ∘ σ) · right of one layer, in θ₀'s shape: one product of matrices.

        Args:
            coefficients: λ of the layer's directions.
            anchor: ``pretrained``.
            kernels: unused; they are for dense task vectors.
        """
        del kernels
        check_anchored(anchor)
        start, parts = self.pretrained[name], self.directions[name]
        dtype = summing_type(start.dtype)
        factors = coefficients.view_as(parts.values).to(parts.values) * parts.values
        scaled = parts.left.to(dtype) * factors.to(dtype).unsqueeze(1)
        blocks = start.to(dtype).view(*scaled.shape[:2], -1)
        return torch.baddbmm(blocks, scaled, parts.right.to(dtype)).view_as(start).to(start.dtype)

    def layer_gradient(
        self,
        name: str,
        gradient: Tensor,
        anchor: Anchor = "pretrained",
        kernels: Kernels = PLAIN,
    ) -> Tensor:
        """∂L/∂λ of a layer's directions: σ_i û_iᵀ G v̂_i, one product of matrices and a row sum.

        Args:
            gradient: G = ∂L/∂θ^ℓ, in θ₀'s shape.
            anchor: ``pretrained``.
            kernels: unused.
        """
        del kernels, anchor
        parts = self.directions[name]
        dtype = summing_type(gradient.dtype)
        blocks = gradient.to(dtype).reshape(*parts.left.shape[:2], -1)
        products = blocks @ parts.right.to(dtype).mT
        along = (parts.left.to(dtype) * products).sum(dim=1)
        return (along * parts.values.to(dtype)).flatten()

    def release(self, layer: str) -> None:
        """Nothing: directions are small enough to stay in memory."""

    def move(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the directions, e.g. to another device."""
        self.directions = {name: each.moved(fn) for name, each in self.directions.items()}


def check_anchored(anchor: Anchor) -> None:
    """Raise ``MergingError`` unless the coefficients are on directions from θ₀."""
    if anchor != "pretrained":
        raise MergingError(f"anchor={anchor}: singular directions start from θ₀; use pretrained")
