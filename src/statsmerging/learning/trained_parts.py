"""Methods that train something of their own: corrections of features, routers, or blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor, nn

from statsmerging.data.images import ImageSplit
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.learning.labels import entropy
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.layers import merged_blocks
from statsmerging.merging.methods.prodistill import ProDistill, block_layers
from statsmerging.merging.methods.surgery import RepresentationSurgery
from statsmerging.merging.methods.twin_merging import TwinMerging
from statsmerging.merging.methods.wemoe import WeightEnsemblingMoE
from statsmerging.runs.cost import Cost
from statsmerging.scoring.block_evidence import block_features
from statsmerging.scoring.scores import Candidate
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import CorrectedHead


def corrected_features(
    method: RepresentationSurgery, base: Candidate, images: Mapping[str, ImageSplit]
) -> tuple[Candidate, Cost]:
    """A merged model, with a correction of its features in front of every head.

    Args:
        base: the merged model, for the tasks of the images.
        images: seen task → unlabeled images.
    """
    zoo = base.zoo
    experts = {task: zoo.experts[task].state for task in images}

    def features(weights: Mapping[str, Tensor], task: str) -> Tensor:
        return zoo.network.features(weights, images[task].images, description=f"features of {task}")

    corrections = method.fit(
        {task: features(base.weights[task], task) for task in images},
        {task: features(expert, task) for task, expert in experts.items()},
    )
    corrected = {
        task: Expert(experts[task], CorrectedHead(zoo.experts[task].head, correction))
        for task, correction in corrections.items()
    }
    cost = Cost(
        images=len(images) * method.steps * method.batch_size,
        forward_passes=2 * sum(map(len, images.values())),  # once of each model
        parameters=sum(map(_size, corrections.values())),
    )
    return replace(base, zoo=replace(zoo, experts=corrected)), cost


def routed_experts(
    method: WeightEnsemblingMoE,
    zoo: Zoo,
    bank: TaskVectorBank,
    images: Mapping[str, ImageSplit],
    images_per_task: int,
) -> tuple[Candidate, Cost]:
    """Routers, trained by the entropy of the predictions.

    Args:
        images: seen task → unlabeled images.
        images_per_task: images of each task in one step.
    """
    data = UnlabeledDataModule(
        {task: split.images for task, split in images.items()},
        images_per_task=images_per_task,
        steps_per_epoch=method.steps,
        seed=method.seed,
    )
    heads = {task: zoo.experts[task].head.to(zoo.device) for task in images}

    def batches() -> Iterator[dict[str, Tensor]]:
        for batch in data.train_dataloader():
            inputs = zoo.preprocess.normalise(batch.images.to(zoo.device))
            yield dict(zip(heads, inputs.split(images_per_task), strict=True))

    model = method.fit(
        zoo.network.frozen(),
        bank,
        batches(),
        lambda task, features: entropy(heads[task](features)),
    )
    seen = data.sampler.images(method.steps)
    cost = Cost(
        images=seen,
        forward_passes=seen,
        backward_passes=seen,
        parameters=sum(map(_size, model.routers.values())),
    )
    routed = replace(zoo, network=replace(zoo.network, module=model))
    return Candidate.of_state(method.title, routed, model.state_dict(), keep=False), cost


def twin_experts(
    method: TwinMerging, zoo: Zoo, bank: TaskVectorBank, images: Mapping[str, ImageSplit]
) -> tuple[Candidate, Cost]:
    """A shared model, exclusive parts of the experts, and a router that learned the images' tasks.

    Args:
        images: seen task → unlabeled images.
    """

    def features(task: str, weights: Mapping[str, Tensor]) -> Tensor:
        return zoo.network.features(weights, images[task].images, description=f"features of {task}")

    model = method.fit(zoo.network.frozen(), bank, features)
    seen = sum(map(len, images.values()))
    cost = Cost(images=method.epochs * seen, forward_passes=seen, parameters=_size(model.router))
    routed = replace(zoo, network=replace(zoo.network, module=model))
    return Candidate.of_state(method.title, routed, model.state_dict(), keep=False), cost


def distilled_weights(
    method: ProDistill, zoo: Zoo, bank: TaskVectorBank, images: Mapping[str, ImageSplit]
) -> tuple[dict[str, Tensor], Cost]:
    """Merged weights, block by block, from the experts' features.

    Args:
        images: seen task → unlabeled images.
    """
    features = block_features(zoo, images, images_per_task=method.images_per_task)
    state = method.fit(zoo.network.frozen(), bank, features)
    blocks = merged_blocks(bank, method.title)
    count = sum(min(method.images_per_task, len(split)) for split in images.values())
    cost = Cost(
        images=method.epochs * count,
        # Two networks run for each block; the steps pass each block once, together the backbone.
        forward_passes=(2 * len(blocks) + method.epochs) * count,
        backward_passes=method.epochs * count,
        parameters=sum(
            bank.vectors[layer].numel() for block in blocks for layer in block_layers(bank, block)
        ),
    )
    return state, cost


def _size(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(weight.numel() for weight in module.parameters())
