"""Supervised training of a backbone: pre-training, and fine-tuning to make a teacher."""

from __future__ import annotations

import math

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.labeled import LabeledBatch, LabeledImages
from statsmerging.data.preprocess import Preprocess
from statsmerging.data.sampler import TaskBalancedSampler
from statsmerging.zoo.settings import TrainingSettings
from statsmerging.zoo.trainer import create_trainer


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
