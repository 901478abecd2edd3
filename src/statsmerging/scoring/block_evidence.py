"""Evidence from unlabeled images on one block of a network, behind blocks that are merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.data.images import ImageSplit, in_batches
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.featcal import BlockMoments, Moments
from statsmerging.merging.methods.layers import blocks_of
from statsmerging.scoring.evidence import BATCH, input_grams, observed
from statsmerging.zoo.experts import Zoo

#: Ends of the names of weights that keys and values are made with.
_KEYS_AND_VALUES = ("qkv.weight", "in_proj_weight", "k_proj.weight", "v_proj.weight")


def block_grams(
    zoo: Zoo, images: Mapping[str, ImageSplit], *, images_per_task: int
) -> Callable[[str, str, Mapping[str, Tensor]], dict[str, Tensor]]:
    """Gram matrices of one block of an expert behind merged blocks, as RegMean++ asks for them.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.

    Returns:
        (prefix of the block's tensor names, task, merged weights) → as for ``input_grams``.
    """
    samples = {task: split.sample(images_per_task) for task, split in images.items()}

    def grams(block: str, task: str, merged: Mapping[str, Tensor]) -> dict[str, Tensor]:
        expert = zoo.experts[task].state
        own = {name: expert[name] for name in expert if name.startswith(block)}
        description = f"inputs of {block} on {task}"
        return input_grams(zoo, {**merged, **own}, samples[task], description, within=block)

    return grams


def block_features(
    zoo: Zoo, images: Mapping[str, ImageSplit], *, images_per_task: int
) -> Callable[[str, str, Mapping[str, Tensor]], tuple[Tensor, Tensor]]:
    """Inputs of a merged network's block, and outputs of an expert's, as ProDistill asks for them.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.

    Returns:
        (prefix of the block's tensor names, task, merged weights) → inputs under the merged
        weights and outputs under those of the task's expert; images are the first dimension.

    Raises:
        MergingError: by what is returned; a block that takes or gives something else than one
            tensor with the images in its first dimension.
    """
    samples = {task: split.sample(images_per_task) for task, split in images.items()}

    def features(block: str, task: str, merged: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        described = f"{block} on {task}"
        inputs, _ = _through_block(zoo, merged, samples[task], block, f"into {described}")
        expert = zoo.experts[task].state
        _, outputs = _through_block(zoo, expert, samples[task], block, f"out of {described}")
        return inputs, outputs

    return features


def _through_block(
    zoo: Zoo, state: Mapping[str, Tensor], split: ImageSplit, block: str, description: str
) -> tuple[Tensor, Tensor]:
    """What goes into a block and what comes out of it, under the given weights."""
    caught: list[tuple[Tensor, Tensor]] = []

    def catch(
        _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        given = [each for each in (*arguments, *options.values()) if each is not None]
        if len(given) != 1 or not isinstance(output, Tensor) or len(given[0]) != len(batch):
            raise MergingError(f"{block}: the block is no function of its features alone")
        caught.append((given[0], output))

    backbone, weights = zoo.network.module, zoo.network.weights(state)
    module = backbone.get_submodule(block.removesuffix("."))
    handle = module.register_forward_hook(catch, with_kwargs=True)
    try:
        with torch.no_grad():
            for batch in in_batches(split.images, BATCH, description):
                inputs = zoo.preprocess.normalise(batch.to(zoo.device))
                functional_call(backbone, weights, (inputs,))
    finally:
        handle.remove()
    inputs_of, outputs_of = zip(*caught, strict=True)
    return torch.cat(inputs_of), torch.cat(outputs_of)


def block_moments(
    zoo: Zoo, images: Mapping[str, ImageSplit], *, images_per_task: int, other_tokens: float
) -> BlockMoments:
    """Moments of what the layers of a block see in a merged network and in an expert, for FeatCal.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.
        other_tokens: weight of tokens besides the class token in the network's last block, if the
            class token's are the features; keys and values are made from all tokens alike.

    Returns:
        (prefix of the block's tensor names, task, merged weights) → name of the weight tensor →
        moments on the images of the task, float32, on the CPU.
    """
    samples = {task: split.sample(images_per_task) for task, split in images.items()}
    last = blocks_of(zoo.pretrained)[-1:] if _pooled_by_class_token(zoo.network.module) else []

    def moments(block: str, task: str, merged: Mapping[str, Tensor]) -> dict[str, Moments]:
        both = [zoo.network.weights(state) for state in (merged, zoo.experts[task].state)]
        sums: dict[str, list[Tensor]] = {}
        for batch in in_batches(samples[task].images, BATCH, f"inputs of {block} on {task}"):
            inputs = zoo.preprocess.normalise(batch.to(zoo.device))
            in_merged, in_expert = (_seen(zoo, weights, inputs, block) for weights in both)
            for name, own in in_merged.items():
                shares = own.new_ones(own.shape[:-1])
                if block in last and own.dim() == 3 and not name.endswith(_KEYS_AND_VALUES):
                    shares[:, 1:] = other_tokens
                parts = _weighted_sums(own, in_expert[name], shares, both[0][name].dim() == 1)
                before = sums.get(name, [torch.zeros_like(part) for part in parts])
                sums[name] = [left + right for left, right in zip(before, parts, strict=True)]
        return {
            name: Moments(*((part / total).cpu() for part in parts))
            for name, (*parts, total) in sums.items()
        }

    return moments


@torch.no_grad()
def _seen(zoo: Zoo, weights: Mapping[str, Tensor], inputs: Tensor, block: str) -> dict[str, Tensor]:
    """Inputs of the layers of a block, features along the last axis."""
    found: dict[str, Tensor] = {}
    with observed(zoo.network.module, block, found.__setitem__):
        functional_call(zoo.network.module, dict(weights), (inputs,))
    return found


def _weighted_sums(own: Tensor, expert: Tensor, shares: Tensor, scale: bool) -> list[Tensor]:
    """Sums that ``Moments`` are means of, and that of the weights.

    Args:
        scale: the layer is a normalisation.
    """
    x, y, weights = own.flatten(end_dim=-2), expert.flatten(end_dim=-2), shares.flatten()
    of_x, of_y = weights.unsqueeze(1) * x, weights.unsqueeze(1) * y
    if scale:
        products = [(x * of_x).sum(dim=0), (x * of_y).sum(dim=0)]
    else:
        products = [x.mT @ of_x, x.mT @ of_y]
    return [of_x.sum(dim=0), of_y.sum(dim=0), *products, weights.sum()]


def _pooled_by_class_token(backbone: nn.Module) -> bool:
    """Whether a vision transformer of timm or open_clip gives the features of its class token."""
    pooling = getattr(backbone, "global_pool", None), getattr(backbone, "pool_type", None)
    return pooling[0] == "token" or pooling[1] == "tok"
