"""A backbone with every kind of tensor a bank can hold, and random experts of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TinyBackbone(nn.Module):
    """A convolution, a normalisation and a matrix: every kind of tensor a bank can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, kernel_size=3)
        self.normalisation = nn.BatchNorm2d(4)
        self.projection = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.normalisation(self.convolution(images)))
        output: Tensor = self.projection(hidden.mean(dim=(2, 3)))
        return output


def random_experts(
    pretrained: dict[str, Tensor], tasks: tuple[str, ...], scale: float = 0.1, seed: int = 1
) -> dict[str, dict[str, Tensor]]:
    """Experts that differ from the pre-trained weights by Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)

    def perturb(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.clone()
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        return tensor + scale * noise.abs()

    return {task: {name: perturb(tensor) for name, tensor in pretrained.items()} for task in tasks}
