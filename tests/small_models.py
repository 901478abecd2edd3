"""Small backbones, and random experts of them."""

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


class TinyAttention(nn.Module):
    """Patches and self-attention, whose queries, keys and values are one fused matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, kernel_size=4, stride=4)
        self.attention = nn.MultiheadAttention(6, num_heads=2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        attended: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return attended.mean(dim=1)


def small_vit() -> nn.Module:
    """timm's vision transformer with two blocks, for images of 16 × 16."""
    import timm

    vit: nn.Module = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        img_size=16,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=2,
    )
    return vit


def small_tower() -> nn.Module:
    """open_clip's image tower with two blocks, for images of 16 × 16."""
    from open_clip.transformer import VisionTransformer

    tower: nn.Module = VisionTransformer(
        16, patch_size=8, width=24, layers=2, heads=2, mlp_ratio=4, output_dim=12
    )
    return tower


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
