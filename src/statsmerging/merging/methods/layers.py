"""Merging layer by layer: nothing is in memory but one layer's task vectors and the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.singular_vectors import noise_levels
from statsmerging.merging.state_dicts import matrix_shape

#: Blocks of timm's transformers, of open_clip's towers and of residual networks.
_BLOCK = re.compile(r"(blocks|transformer\.resblocks|layer\d+)\.\d+\.")

#: Layer name → K × n task vectors in float32.
Rows = Callable[[str], Tensor]


def stored_rows(bank: TaskVectorBank) -> Rows:
    """The bank's task vectors, converted to float32 one layer at a time."""
    return lambda layer: bank.vectors[layer].float()


@torch.no_grad()
def add_to_pretrained(bank: TaskVectorBank, update: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """State dict of θ₀ plus an update.

    Args:
        update: layer name → n numbers in any shape, float32.
    """
    weights = {}
    for layer, start in bank.pretrained.items():
        change = update(layer).reshape(start.shape)
        weights[layer] = (start.to(torch.promote_types(start.dtype, change.dtype)) + change).to(
            start.dtype
        )
    return {**bank.kept, **weights}


def merge_matrices(
    bank: TaskVectorBank,
    merge: Callable[[Tensor, Tensor], Tensor],
    scale: float,
    *,
    flatten_convolutions: bool,
) -> dict[str, Tensor]:
    """State dict of θ₀ + λ Δ, where Δ is ``merge`` of matrices and the mean of other tensors.

    Args:
        merge: K × m × n task matrices of a layer and their ``noise_levels`` → m × n.
        scale: λ.
        flatten_convolutions: see ``is_matrix``.
    """

    def update(layer: str) -> Tensor:
        rows, start = stored_rows(bank)(layer), bank.pretrained[layer]
        if not is_matrix(start, flatten_convolutions=flatten_convolutions):
            return scale * rows.mean(dim=0)
        matrices = rows.view(-1, *matrix_shape(start))
        return scale * merge(matrices, layer_noise(bank, layer, rows))

    return add_to_pretrained(bank, update)


def layer_noise(bank: TaskVectorBank, layer: str, rows: Tensor) -> Tensor:
    """``noise_levels`` of a layer's task vectors, K × n float32."""
    start, stored = bank.pretrained[layer], bank.vectors[layer].dtype
    return noise_levels(start, rows, bank.rounding[layer], stored)


def is_matrix(tensor: Tensor, *, flatten_convolutions: bool) -> bool:
    """Whether a tensor is merged as a matrix: 2-D ones, of more than a single row or column.

    Args:
        flatten_convolutions: tensors of more dimensions (convolutions, patch embeddings) are, as
            out × rest, matrices too.
    """
    dimensions_fit = tensor.dim() == 2 or (flatten_convolutions and tensor.dim() > 2)
    return dimensions_fit and min(matrix_shape(tensor)) > 1


def attention_and_mlps(bank: TaskVectorBank, method: str) -> TaskVectorBank:
    """The same experts with nothing to merge but the matrices of attention and MLPs.

    All else is kept as it is in θ₀. In a network whose names tell none, all 2-D tensors are merged.

    Args:
        method: its name, for the message; it has a parameter ``all_tensors``.

    Raises:
        MergingError: there is no matrix.
    """
    matrices = [
        layer
        for layer, start in bank.pretrained.items()
        if is_matrix(start, flatten_convolutions=False)
    ]
    taken = [layer for layer in matrices if re.search("attn|attention|mlp", layer)] or matrices
    if not taken:
        raise MergingError(
            f"{method}: no expert changed a matrix; all_tensors=true merges the rest"
        )
    part = TaskVectorBank(
        bank.tasks,
        {layer: bank.pretrained[layer] for layer in taken},
        {layer: bank.vectors[layer] for layer in taken},
        bank.kept | {name: bank.pretrained[name] for name in bank.layers if name not in taken},
        bank.file,
    )
    part.rounding = {layer: bank.rounding[layer] for layer in taken}
    return part


def blocks_of(layers: Iterable[str]) -> list[str]:
    """Prefixes of the layers' names, one for each block of the network, in its order."""
    return list({match.group(): None for name in layers if (match := _BLOCK.match(name))})


def merged_blocks(bank: TaskVectorBank, title: str) -> list[str]:
    """``blocks_of`` the merged layers, for a method that cannot do without them.

    Raises:
        MergingError: there are none; the message has the method's title.
    """
    found = blocks_of(bank.layers)
    if not found:
        raise MergingError(f"{title} merges block by block, and the backbone has no known blocks")
    return found
