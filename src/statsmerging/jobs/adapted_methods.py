"""Methods that give no single static model: they correct features, or choose weights per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.unlabeled import UnlabeledDataModule
from statsmerging.distillation.objectives import entropy
from statsmerging.evaluation.candidate import Candidate
from statsmerging.merging.methods import task_arithmetic
from statsmerging.merging.methods.surgery import RepresentationSurgery
from statsmerging.merging.methods.wemoe import WeightEnsemblingMoE
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import CorrectedHead
from statsmerging.zoo.inference import extract_features


def corrected_features(
    method: RepresentationSurgery,
    zoo: Zoo,
    bank: TaskVectorBank,
    images: Mapping[str, ImageSplit],
) -> Candidate:
    """Task arithmetic, with a correction of its features in front of every head.

    Args:
        images: seen task → unlabeled images.
    """
    state = task_arithmetic(bank)
    experts = {task: zoo.experts[task].state for task in images}

    def features(weights: Mapping[str, Tensor], task: str) -> Tensor:
        return extract_features(
            zoo.backbone,
            weights,
            images[task].images,
            zoo.preprocess,
            zoo.device,
            description=f"features of {task}",
        )

    corrections = method.fit(
        {task: features(state, task) for task in images},
        {task: features(expert, task) for task, expert in experts.items()},
    )
    corrected = {
        task: Expert(experts[task], CorrectedHead(zoo.experts[task].head, correction))
        for task, correction in corrections.items()
    }
    return Candidate.of_state(method.title, replace(zoo, experts=corrected), state, keep=False)


def routed_experts(
    method: WeightEnsemblingMoE,
    zoo: Zoo,
    bank: TaskVectorBank,
    images: Mapping[str, ImageSplit],
    images_per_task: int,
) -> Candidate:
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
        zoo.backbone.to(zoo.device),
        bank,
        batches(),
        lambda task, features: entropy(heads[task](features)),
    )
    return Candidate.of_state(
        method.title, replace(zoo, backbone=model), model.state_dict(), keep=False
    )
