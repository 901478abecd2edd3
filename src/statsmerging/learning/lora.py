"""LoRA fine-tuning: each matrix of a network's blocks gets a low-rank update, all else is frozen.

W = W₀ + B A, with B at zero and A uniform at the start (Hu et al., *LoRA: Low-Rank Adaptation of
Large Language Models*, ICLR 2022; α = r, no dropout). Convolutions are out × rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from statsmerging.errors import UserError
from statsmerging.merging.methods.layers import blocks_of
from statsmerging.merging.state_dicts import is_vector, matrix_shape


class LowRankUpdate(nn.Module):
    """W₀ → W₀ + B A in W₀'s shape; at the start W₀ itself.

    Args:
        start: W₀, m × n as a matrix.
        rank: r, of A (r × n) and B (m × r).
        generator: source of A.
    """

    def __init__(self, start: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = matrix_shape(start)
        bound = columns**-0.5
        down = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(start))
        self.up = nn.Parameter(start.new_zeros(rows, rank))

    def forward(self, start: Tensor) -> Tensor:
        return start + (self.up @ self.down).view_as(start)


@contextmanager
def low_rank_updates(backbone: nn.Module, rank: int, seed: int) -> Iterator[None]:
    """Only low-rank updates train while the context lasts; then they are part of the weights.

    Args:
        backbone: changed in place; its parameters stay frozen.
        rank: of every update.
        seed: of the initial A.

    Raises:
        UserError: as ``check_rank``.
    """
    check_rank(backbone, rank)
    names = matrices_of_blocks(backbone)
    backbone.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        layer, parameter = _place(backbone, name)
        update = LowRankUpdate(getattr(layer, parameter), rank, generator)
        parametrize.register_parametrization(layer, parameter, update)
    yield
    for name in names:
        parametrize.remove_parametrizations(*_place(backbone, name), leave_parametrized=True)


def check_rank(backbone: nn.Module, rank: int) -> None:
    """Raise ``UserError`` unless every matrix of the blocks can have an update of that rank."""
    parameters = dict(backbone.named_parameters())
    sides = [min(matrix_shape(parameters[name])) for name in matrices_of_blocks(backbone)]
    if not sides:
        raise UserError(
            f"zoo.lora_rank={rank}: this backbone has no blocks that are named as in timm's "
            "transformers, open_clip's towers or residual networks; null fine-tunes all weights"
        )
    if rank > min(sides):
        raise UserError(
            f"zoo.lora_rank={rank}: choose at most {min(sides)}, the smallest side of a matrix in "
            "the backbone's blocks; null fine-tunes all weights"
        )


def matrices_of_blocks(backbone: nn.Module) -> list[str]:
    """Names of the parameters that get an update."""
    parameters = dict(backbone.named_parameters())
    blocks = tuple(blocks_of(parameters))
    return [
        name
        for name, value in parameters.items()
        if name.startswith(blocks) and not is_vector(value)
    ]


def _place(backbone: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The layer of a parameter, and the parameter's name in it."""
    layer, _, parameter = name.rpartition(".")
    return backbone.get_submodule(layer), parameter
