"""Networks at full size with random weights, and banks of random task vectors: no download."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from torch import nn

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.bank import empty_vectors


def backbone(name: str, image_size: int) -> nn.Module:
    """A network of timm without its head, freshly initialised."""
    network: nn.Module = timm.create_model(name, num_classes=0, img_size=image_size)
    return network.eval()


def random_bank(
    network: nn.Module,
    tasks: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    memory_map: Path | None = None,
) -> TaskVectorBank:
    """Task vectors of Gaussian noise around the network, made without K state dicts in memory."""
    pretrained = {name: value.detach() for name, value in network.named_parameters()}
    sizes = {name: value.numel() for name, value in pretrained.items()}
    vectors, file = empty_vectors(sizes, tasks, dtype=dtype, device=device, memory_map=memory_map)
    names = tuple(f"task_{k}" for k in range(tasks))
    bank = TaskVectorBank(names, pretrained, vectors, dict(network.named_buffers()), file)
    lengths = torch.linspace(0.5e-3, 1.5e-3, tasks, dtype=dtype, device=device).unsqueeze(1)
    for _, rows in bank.layer_vectors():
        # One noise for all experts, of several lengths: random numbers take longer than all else.
        rows.copy_(torch.randn(rows.shape[1], device=device)).mul_(lengths)
    return bank
