"""Evidence from unlabeled images: Gram matrices of layer inputs, and Fisher diagonals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.images import Images, ImageSplit, in_batches
from statsmerging.zoo.experts import Expert, Zoo

#: Called with the name of a weight tensor and its inputs, the features along the last axis.
Observer = Callable[[str, Tensor], None]

#: Gives names of a module's weights and their inputs, from what the module is called with.
Reader = Callable[..., Iterator[tuple[str, Tensor]]]


@contextmanager
def observed(backbone: nn.Module, within: str, observe: Observer) -> Iterator[None]:
    """Within the block, every forward pass calls the observer with the inputs of the layers.

    The layers are ``nn.Linear``, ``nn.Conv2d`` without groups (the inputs are patches), both
    projections of ``nn.MultiheadAttention`` under self-attention, and ``nn.LayerNorm`` and
    ``nn.BatchNorm2d`` (the inputs are those of the scale, normalised). Grouped convolutions,
    convolutions that are not padded by a number of zeros, and matrices that a network multiplies
    by without a module, such as ``proj`` of open_clip's towers, are not observed.

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


def _normalised(layer: nn.LayerNorm, inputs: Tensor) -> Iterator[tuple[str, Tensor]]:
    # timm's normalisation over channels in front is an nn.LayerNorm too.
    if layer.weight is not None and tuple(layer.normalized_shape) == inputs.shape[-1:]:
        yield "weight", nn.functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)


def _normalised_maps(layer: nn.BatchNorm2d, maps: Tensor) -> Iterator[tuple[str, Tensor]]:
    if layer.weight is not None and layer.running_mean is not None:
        normalised = nn.functional.batch_norm(
            maps, layer.running_mean, layer.running_var, eps=layer.eps
        )
        yield "weight", normalised.movedim(1, -1)


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
    nn.LayerNorm: _normalised,
    nn.BatchNorm2d: _normalised_maps,
}

#: Images of each task that evidence is collected from at most.
IMAGES_PER_TASK = 256

#: Images in one forward pass; the patches of a convolution take far more memory than its output.
BATCH = 32


def gram_matrices(
    zoo: Zoo, images: Mapping[str, ImageSplit], *, images_per_task: int = IMAGES_PER_TASK
) -> dict[str, dict[str, Tensor]]:
    """Mean x xᵀ of every layer's inputs in each expert on its own task's images.

    See ``observed`` for which layers are included; RegMean averages the others. Normalisations have
    mean x ∘ x.
    The result holds K · Σ n² numbers over the layers: 4.6 GB for eight ViT-B/32, 15 GB for eight
    ViT-L.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.

    Returns:
        Task → name of the weight tensor → n × n (n of normalisations), float32, on the CPU.
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
        Name of the weight tensor → n × n (n of normalisations), on the CPU.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, inputs: Tensor) -> None:
        rows = inputs.flatten(end_dim=-2)
        scale = weights[name].dim() == 1
        sums[name] = sums.get(name, 0) + (rows.square().sum(dim=0) if scale else rows.mT @ rows)
        counts[name] = counts.get(name, 0) + len(rows)

    backbone, weights = zoo.network.module, zoo.network.weights(state)
    with torch.no_grad(), observed(backbone, within, add):
        for batch in in_batches(split.images, BATCH, description):
            functional_call(backbone, weights, (zoo.preprocess.normalise(batch.to(zoo.device)),))
    return {name: (total / counts[name]).cpu() for name, total in sums.items()}


def fisher_diagonals(
    zoo: Zoo,
    images: Mapping[str, ImageSplit],
    *,
    images_per_task: int = IMAGES_PER_TASK,
    labels_per_image: int | None = 1,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Diagonal of every expert's Fisher information on its own task's images.

    F_k = mean over images of E_y (∇ log p(y | x))², entry by entry, where y follows the expert's
    own prediction p(· | x) and not the ground truth (Matena & Raffel, *Merging Models with
    Fisher-Weighted Averaging*, NeurIPS 2022, section 3.1). One image at a time: the square of a
    batch's gradient is not the sum of its images' squares.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.
        labels_per_image: labels drawn from the prediction, one backward pass each; ``None`` for
            the exact expectation, one backward pass for each class.
        seed: of the drawn labels.

    Returns:
        Task → parameter name → tensor of the parameter's shape, float32, on the CPU.
    """
    return {
        task: _fisher_diagonal(
            zoo,
            zoo.experts[task],
            split.sample(images_per_task).images,
            labels_per_image,
            torch.Generator().manual_seed(seed),
            description=f"Fisher information on {task}",
        )
        for task, split in images.items()
    }


def _fisher_diagonal(
    zoo: Zoo,
    expert: Expert,
    images: Images,
    labels_per_image: int | None,
    generator: torch.Generator,
    *,
    description: str,
) -> dict[str, Tensor]:
    backbone, head = zoo.network.module, expert.head.to(zoo.device)
    state = {name: tensor.detach() for name, tensor in expert.state.items()}
    weights = zoo.network.weights(state)
    parameters = [name for name, _ in backbone.named_parameters()]
    leaves = [weights[name].requires_grad_() for name in parameters]
    squares = [torch.zeros_like(leaf) for leaf in leaves]
    for image in in_batches(images, 1, description):
        inputs = zoo.preprocess.normalise(image.to(zoo.device))
        features = functional_call(backbone, weights, (inputs,))
        log_likelihoods = head(features).log_softmax(dim=1).squeeze(0)
        for label, share in _labels(log_likelihoods.detach().exp(), labels_per_image, generator):
            gradients = torch.autograd.grad(
                log_likelihoods[label],
                leaves,
                retain_graph=True,
                materialize_grads=True,
            )
            for square, gradient in zip(squares, gradients, strict=True):
                square.addcmul_(gradient, gradient, value=share / len(images))
    return {name: square.cpu() for name, square in zip(parameters, squares, strict=True)}


def _labels(
    prediction: Tensor, draws: int | None, generator: torch.Generator
) -> Iterator[tuple[int, float]]:
    """Labels and their shares in the expectation over a prediction (C)."""
    if draws is None:
        yield from enumerate(prediction.tolist())
        return
    # Drawn on the CPU: generators of different devices give different numbers.
    for label in torch.multinomial(prediction.cpu(), draws, True, generator=generator).tolist():
        yield label, 1 / draws
