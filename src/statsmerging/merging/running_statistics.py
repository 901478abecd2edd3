"""Running statistics of batch normalisation in a merged network, from forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from statsmerging.merging.errors import MergingError


def running_statistics(backbone: nn.Module) -> tuple[str, ...]:
    """Names of the running means and variances by which batch normalisation normalises."""
    return tuple(
        f"{name}.{part}" if name else part
        for name in _layers(backbone)
        for part in ("running_mean", "running_var")
    )


@torch.no_grad()
def recalibrated(
    backbone: nn.Module, state: Mapping[str, Tensor], batches: Iterable[Tensor]
) -> dict[str, Tensor]:
    """The running statistics that a network with the given weights has on the given inputs.

    Every layer normalises by the mean and variance of its batch, as in training, and its running
    mean and variance become the mean over the batches: how REPAIR treats batch normalisation
    (Jordan et al., *REPAIR: REnormalizing Permuted Activations for Interpolation Repair*, ICLR
    2023). All else stays in evaluation mode.

    Args:
        backbone: its module; it is copied.
        state: its weights by name; running statistics among them have no influence.
        batches: inputs as the backbone takes them. Every batch counts the same, and should hold
            the mixture of inputs that the network is for.

    Returns:
        Name of the tensor → values, on the device and in the type of ``state``; empty for a
        network without batch normalisation.

    Raises:
        MergingError: no batch.
    """
    names = running_statistics(backbone)
    if not names:
        return {}
    network = deepcopy(backbone).eval()
    network.load_state_dict(state)
    for layer in _layers(network).values():
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches, not an exponential one
        layer.train()
    empty = True
    for batch in batches:
        network(batch)
        empty = False
    if empty:
        raise MergingError("running statistics need at least one batch of inputs")
    found = network.state_dict()
    return {name: found[name].to(state[name]) for name in names}


def _layers(backbone: nn.Module) -> dict[str, _BatchNorm]:
    """Layers of batch normalisation that have running statistics, by name."""
    return {
        name: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }
