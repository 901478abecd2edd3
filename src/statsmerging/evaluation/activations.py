"""Gram matrices of layer inputs, the evidence of RegMean, from unlabeled images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from statsmerging.data.image_cache import ImageSplit
from statsmerging.evaluation.layer_inputs import observed
from statsmerging.records.progress import track
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.inference import weights_on

#: Images in one forward pass; the patches of a convolution take far more memory than its output.
BATCH = 32


def gram_matrices(
    zoo: Zoo, images: Mapping[str, ImageSplit], *, images_per_task: int = 256
) -> dict[str, dict[str, Tensor]]:
    """Mean x xᵀ of every layer's inputs in each expert on its own task's images.

    Which layers these are says ``layer_inputs``; RegMean averages the others.
    The result holds K · Σ n² numbers over the layers: 4.6 GB for eight ViT-B/32, 15 GB for eight
    ViT-L.

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
    weights = weights_on(zoo.device, state)
    batches = split.images.split(BATCH)
    with torch.no_grad(), observed(backbone, within, add):
        for batch in track(batches, description, total=len(batches)):
            functional_call(backbone, weights, (zoo.preprocess.normalise(batch.to(zoo.device)),))
    return {name: (total / counts[name]).cpu() for name, total in sums.items()}
