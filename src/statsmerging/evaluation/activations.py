"""Gram matrices of layer inputs, the evidence of RegMean: from unlabeled images, no ground truth.

What is regressed: ``nn.Linear``, ``nn.Conv2d`` without groups (its inputs are patches), and both
projections of ``nn.MultiheadAttention`` under self-attention. Everything else has no Gram matrix:
grouped convolutions, convolutions padded otherwise than by a number of zeros, and matrices that a
network multiplies by itself, such as ``proj`` of open_clip's towers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.progress import track
from statsmerging.zoo.experts import Zoo

#: Images in one forward pass; the patches of a convolution take far more memory than its output.
BATCH = 32

#: Called with the name of a weight tensor and its inputs, the features along the last axis.
Observer = Callable[[str, Tensor], None]


def gram_matrices(
    zoo: Zoo, images: Mapping[str, ImageSplit], *, images_per_task: int = 256
) -> dict[str, dict[str, Tensor]]:
    """Mean x xᵀ of every layer's inputs in each expert on its own task's images.

    All tasks together take K · Σ n² numbers over the layers: 4.3 GB for eight ViT-B.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.

    Returns:
        Task → name of the weight tensor → n × n, float32, on the CPU.
    """
    return {
        task: input_grams(
            zoo, zoo.experts[task].state, split.sample(images_per_task), f"inputs on {task}"
        )
        for task, split in images.items()
    }


def input_grams(
    zoo: Zoo,
    state: Mapping[str, Tensor],
    split: ImageSplit,
    description: str,
    *,
    within: str = "",
) -> dict[str, Tensor]:
    """Mean x xᵀ over images and positions of every layer's inputs, under the given weights.

    Args:
        state: backbone weights by tensor name.
        description: shown beside the progress bar.
        within: only layers whose name starts with it.

    Returns:
        Name of the weight tensor → n × n, on the CPU.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs.flatten(end_dim=-2)
        sums[name] = sums.get(name, 0) + rows.mT @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    backbone = zoo.backbone.eval().to(zoo.device)
    weights = {name: tensor.to(zoo.device) for name, tensor in state.items()}
    batches = split.images.split(BATCH)
    with torch.no_grad(), _observed(backbone, within, add):
        for batch in track(batches, description, total=len(batches)):
            functional_call(backbone, weights, (zoo.preprocess.normalise(batch.to(zoo.device)),))
    return {name: (total / counts[name]).cpu() for name, total in sums.items()}


@contextmanager
def _observed(backbone: nn.Module, within: str, observe: Observer) -> Iterator[None]:
    """Show the observer the inputs of every layer that can be regressed."""
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
    inputs_of: Callable[..., Iterable[tuple[str, Tensor]]],
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


_INPUTS: dict[type[nn.Module], Callable[..., Iterator[tuple[str, Tensor]]]] = {
    nn.Linear: _linear_inputs,
    nn.Conv2d: _patches,
    nn.MultiheadAttention: _attention_inputs,
}
