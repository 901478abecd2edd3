"""The jointly trained model: one network on all tasks with their labels: an upper bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.learning.data_module import Address, LabeledBatch, TaskBalancedSampler
from statsmerging.learning.finetuning import SupervisedModule, fix_running_statistics
from statsmerging.learning.trainer import create_trainer
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.settings import TrainingSettings
from statsmerging.zoo.weights import FileTensors, Weights, write_weights


def joint_weights(
    zoo: Zoo,
    splits: Mapping[str, ImageSplit],
    settings: TrainingSettings,
    *,
    cache: Cache,
    accelerator: str,
) -> Weights:
    """Backbone weights after training on all tasks at once, under their frozen heads.

    K times the steps of one expert, in batches of their size with the same number of images from
    every task: as many images as all experts together saw, where K divides the size of a batch.
    Running statistics of normalisation layers stay as they are, as they do in fine-tuning.

    Args:
        splits: seen task → its labelled training images.
        settings: with which each expert was fine-tuned.
    """
    heads = [zoo.experts[task].head for task in splits]
    key = key_of(
        [
            zoo.network.architecture,
            zoo.hashes["pretrained"],
            *(zoo.hashes[f"{task}/head"] for task in splits),
            *(split.key for split in splits.values()),
            zoo.preprocess.key,
            settings.model_dump_json(),
            "fixed running statistics",
        ]
    )

    def write(path: Path) -> None:
        backbone = zoo.network.fresh(zoo.pretrained)
        per_task = max(1, settings.batch_size // len(splits))
        sampler = TaskBalancedSampler(
            [len(split) for split in splits.values()],
            per_task,
            settings.steps * len(splits),
            settings.seed,
        )
        loader = DataLoader(_JointImages(list(splits.values())), sampler=sampler, batch_size=None)
        longer = settings.model_copy(update={"steps": settings.steps * len(splits)})
        module = _JointModule(backbone, heads, per_task, zoo.preprocess, longer)
        trainer = create_trainer(
            accelerator=accelerator, epochs=1, description="training on all tasks", clip=1.0
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            module.train()
            fix_running_statistics(backbone)
            trainer.fit(module, loader)
        write_weights(path, backbone.state_dict())

    return Weights(cache.load("joint", f"{key}.safetensors", write, FileTensors))


class _JointImages(Dataset[LabeledBatch]):
    """Training images of all tasks; an item is a whole batch, given by its addresses."""

    def __init__(self, splits: Sequence[ImageSplit]) -> None:
        self.splits = splits

    def __getitem__(self, addresses: list[Address]) -> LabeledBatch:
        return LabeledBatch(
            torch.stack([self.splits[task].images[index] for task, index in addresses]),
            torch.stack([self.splits[task].labels[index] for task, index in addresses]),
        )


class _JointModule(SupervisedModule):
    """Cross-entropy of each task's images under its own head, averaged over tasks."""

    def __init__(
        self,
        backbone: nn.Module,
        heads: Sequence[nn.Module],
        per_task: int,
        preprocess: Preprocess,
        settings: TrainingSettings,
    ) -> None:
        super().__init__(backbone, nn.ModuleList(heads), preprocess, settings)
        self.per_task = per_task

    def training_step(self, batch: LabeledBatch) -> Tensor:
        features = self.backbone(self.preprocess.normalise(batch.images))
        parts = zip(
            self.head.children(),
            features.split(self.per_task),
            batch.labels.split(self.per_task),
            strict=True,
        )
        losses = [nn.functional.cross_entropy(head(part), labels) for head, part, labels in parts]
        loss = torch.stack(losses).mean()
        self.log("loss", loss, prog_bar=True)
        return loss
