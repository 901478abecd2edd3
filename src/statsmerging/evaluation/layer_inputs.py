"""What goes into the layers of a network that act as a matrix on their inputs.

These are ``nn.Linear``, ``nn.Conv2d`` without groups (its inputs are patches), and both
projections of ``nn.MultiheadAttention`` under self-attention. Not among them are grouped
convolutions, convolutions padded otherwise than by a number of zeros, and matrices that a network
multiplies by without a module, such as ``proj`` of open_clip's towers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

#: Called with the name of a weight tensor and its inputs, the features along the last axis.
Observer = Callable[[str, Tensor], None]

#: Gives names of a module's weights and their inputs, from what the module is called with.
Reader = Callable[..., Iterator[tuple[str, Tensor]]]


@contextmanager
def observed(backbone: nn.Module, within: str, observe: Observer) -> Iterator[None]:
    """While it lasts, every forward pass shows the observer what goes into the layers.

    Args:
        within: only layers whose name starts with it.
    """
    handles = []
    for name, module in backbone.named_modules():
        for kind, inputs_of in _INPUTS.items():
            if isinstance(module, kind) and name.startswith(within):
                hook = partial(_report, name, inputs_of, observe)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _report(
    name: str,
    inputs_of: Reader,
    observe: Observer,
    module: nn.Module,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    for weight, inputs in inputs_of(module, *arguments, **options):
        observe(f"{name}.{weight}", inputs)


def _linear_inputs(layer: nn.Linear, inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield "weight", inputs


def _patches(layer: nn.Conv2d, images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Patches in the order of the kernel's entries: N × positions × n."""
    if layer.groups > 1 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return
    columns = nn.functional.unfold(
        images, layer.kernel_size, layer.dilation, layer.padding, layer.stride
    )
    yield "weight", columns.mT


def _attention_inputs(
    layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, **options: Any
) -> Iterator[tuple[str, Tensor]]:
    if query is not key or key is not value or layer.in_proj_weight is None:
        return
    yield "in_proj_weight", query
    without = {"layer.out_proj.weight": torch.eye(layer.embed_dim).to(query)}
    if layer.out_proj.bias is not None:
        without["layer.out_proj.bias"] = query.new_zeros(layer.embed_dim)
    yield (
        "out_proj.weight",
        functional_call(_WithoutHooks(layer), without, (query, key, value), options)[0],
    )


class _WithoutHooks(nn.Module):
    """Attention calls no module for its output projection: its inputs are the whole layer's
    output under an identity in that place, and asking for them must not be observed again.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.layer.forward(*arguments, **options)


_INPUTS: dict[type[nn.Module], Reader] = {
    nn.Linear: _linear_inputs,
    nn.Conv2d: _patches,
    nn.MultiheadAttention: _attention_inputs,
}
