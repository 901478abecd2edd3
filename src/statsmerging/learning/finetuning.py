"""Supervised training: of a backbone, if configured, and of one expert per task from it."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from statsmerging.data.images import ImageSplit, SuiteImages, load_split, split_key
from statsmerging.data.pictures import Preprocess
from statsmerging.data.suites import Task
from statsmerging.errors import UserError
from statsmerging.learning.data_module import LabeledBatch, LabeledImages, TaskBalancedSampler
from statsmerging.learning.lora import check_rank, low_rank_updates
from statsmerging.learning.trainer import create_trainer
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import json_sha256, key_of, state_sha256
from statsmerging.zoo.backbones import create_backbone, feature_dimension
from statsmerging.zoo.experts import Expert, Zoo, read_expert, write_expert
from statsmerging.zoo.head_sources import HeadSource, ProbedHeads, head_source
from statsmerging.zoo.heads import check_tells_apart
from statsmerging.zoo.network import Network, inference_device
from statsmerging.zoo.settings import (
    PRETRAIN,
    BackboneSettings,
    FinetunedZooSettings,
    HeadsSettings,
    TrainingSettings,
)
from statsmerging.zoo.weights import Weights, read_weights, write_weights


class SupervisedModule(L.LightningModule):
    """Cross-entropy of backbone and head against labels; a frozen head stays as it is."""

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        preprocess: Preprocess,
        settings: TrainingSettings,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.preprocess = preprocess
        self.settings = settings

    def training_step(self, batch: LabeledBatch) -> Tensor:
        scores = self.head(self.backbone(self.preprocess.normalise(batch.images)))
        loss = nn.functional.cross_entropy(scores, batch.labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return adamw(self, self.settings)


def train_supervised(
    backbone: nn.Module,
    head: nn.Module,
    split: ImageSplit,
    preprocess: Preprocess,
    settings: TrainingSettings,
    *,
    accelerator: str,
    description: str,
    fixed_statistics: bool = True,
) -> None:
    """Train ``backbone`` (and ``head`` where it is not frozen) in place.

    Args:
        split: the training images with their labels.
        description: shown beside the progress bar.
        fixed_statistics: normalisation layers keep their running statistics, so that task vectors
            hold weights only; ``False`` for a backbone that starts from random weights.
    """
    module = SupervisedModule(backbone, head, preprocess, settings)
    sampler = TaskBalancedSampler([len(split)], settings.batch_size, settings.steps, settings.seed)
    loader = DataLoader(LabeledImages(split.images, split.labels), sampler=sampler, batch_size=None)
    trainer = create_trainer(accelerator=accelerator, epochs=1, description=description, clip=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module.train()
        if fixed_statistics:
            fix_running_statistics(backbone)
        trainer.fit(module, loader)
    backbone.eval()


def fix_running_statistics(backbone: nn.Module) -> None:
    """Batch normalisation uses its running statistics, and keeps them, while the rest trains."""
    for layer in backbone.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()


def adamw(module: nn.Module, settings: TrainingSettings) -> OptimizerLRScheduler:
    """AdamW on all that is trainable, its rate following ``warmup_cosine``."""
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = AdamW(trainable, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, settings))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }


def warmup_cosine(step: int, settings: TrainingSettings) -> float:
    """Factor on the learning rate: linear rise, then a cosine to zero."""
    rise = max(1, round(settings.warmup * settings.steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, settings.steps - rise)))


def finetuned_zoo(
    settings: BackboneSettings,
    zoo: FinetunedZooSettings,
    heads: HeadsSettings,
    images: SuiteImages,
    *,
    cache: Cache,
    accelerator: str,
    untrained: Collection[str] = (),
) -> Zoo:
    """An expert for every task of the suite, each fine-tuned once and then read from the cache.

    Args:
        settings: the backbone.
        zoo: how the backbone is pre-trained (``weights="pretrain"``) and the experts fine-tuned.
        heads: under which head the backbone is fine-tuned; an expert's own one is a linear probe.
        images: the suite; only train splits are opened.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        untrained: tasks whose expert stays at θ₀ under its head; it is distilled later.
    """
    if zoo.lora_rank is not None:
        check_rank(create_backbone(settings, load=False), zoo.lora_rank)
    if settings.weights == PRETRAIN:
        module = _pretrained_here(settings, images, zoo.pretraining, cache, accelerator)
    else:
        module = create_backbone(settings)
    for task in images.suite.tasks:
        check_tells_apart(task)
    network = Network(module, images.preprocess, inference_device(accelerator), settings)
    pretrained = network.initial
    probed = ProbedHeads(network, pretrained, images, cache)
    source = head_source(heads, probed, settings, probed=probed, base=None, cache=cache)
    maker = _ExpertMaker(
        network, pretrained, source, images, zoo.finetuning, zoo.lora_rank, cache, accelerator
    )
    experts = {
        task.name: Expert(pretrained, source(task)) if task.name in untrained else maker.make(task)
        for task in images.suite.tasks
    }
    return Zoo(network, pretrained, experts)


def _pretrained_here(
    settings: BackboneSettings,
    images: SuiteImages,
    training: TrainingSettings,
    cache: Cache,
    accelerator: str,
) -> nn.Module:
    """The backbone after supervised pre-training on the suite's generic images."""
    source = images.suite.pretraining
    if source is None:
        raise UserError(
            f"backbone.weights={PRETRAIN}: the suite {images.suite.name} has no images for "
            "pre-training; give a .safetensors file or `hub`"
        )

    def write(path: Path) -> None:
        split = load_split(source, images.preprocess, cache, name="pre-training")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            fresh = create_backbone(settings)
            width = feature_dimension(fresh, images.preprocess)
            head = nn.Linear(width, int(split.labels.max()) + 1)
        train_supervised(
            fresh,
            head,
            split,
            images.preprocess,
            training,
            accelerator=accelerator,
            description="pre-training",
            fixed_statistics=False,
        )
        write_weights(path, fresh.state_dict())

    key = key_of(
        [
            json_sha256(settings.architecture),
            images.preprocess.key,
            split_key(source, images.preprocess),
            training.model_dump_json(),
        ]
    )
    backbone = create_backbone(settings)
    backbone.load_state_dict(cache.load("backbones", f"{key}.safetensors", write, read_weights))
    return backbone


@dataclass(frozen=True)
class _ExpertMaker:
    """Fine-tunes the backbone for a task, under a head that stays as it is."""

    network: Network
    pretrained: Weights
    heads: HeadSource
    images: SuiteImages
    training: TrainingSettings
    lora_rank: int | None
    cache: Cache
    accelerator: str

    def make(self, task: Task) -> Expert:
        """The expert of one task, from the cache if these settings made it before."""
        preprocess, images = self.images.preprocess, self.images.key(task, "train")
        parts = [
            self.network.architecture,
            self.pretrained.sha256,
            preprocess.key,
            images,
            str(len(task.classes)),
            self.training.model_dump_json(),
        ]
        if not isinstance(self.heads, ProbedHeads):  # a probe is determined by the other parts
            parts.append(state_sha256(self.heads(task).state_dict()))
        if self.lora_rank is not None:
            parts.append(f"lora_rank={self.lora_rank}")

        def write(path: Path) -> None:
            head, train = self.heads(task), self.images.split(task, "train")
            backbone = self.network.fresh(self.pretrained)
            with self._trained_part(backbone, train):
                train_supervised(
                    backbone,
                    head,
                    train,
                    preprocess,
                    self.training,
                    accelerator=self.accelerator,
                    description=f"fine-tuning {task.name}",
                )
            write_expert(path, Expert(Weights(backbone.state_dict()), head))

        return self.cache.load("experts", f"{key_of(parts)}.safetensors", write, read_expert)

    def _trained_part(self, backbone: nn.Module, train: ImageSplit) -> AbstractContextManager[None]:
        """What of the backbone is trained: all of it, or low-rank updates.

        Updates begin elsewhere for every task, as those of experts from different places do.
        """
        if self.lora_rank is None:
            return nullcontext()
        digest = key_of([str(self.training.seed), train.key])
        return low_rank_updates(backbone, self.lora_rank, int(digest[:12], 16))
