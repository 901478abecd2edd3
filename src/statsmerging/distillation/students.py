"""Experts of another architecture become experts of the one that is merged (paper, 4.2)."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.preprocess import Preprocess
from statsmerging.data.unlabeled import UnlabeledBatch, UnlabeledDataModule
from statsmerging.distillation.objectives import distillation_loss
from statsmerging.distillation.settings import LabelSettings, StudentSettings
from statsmerging.records.cache import Cache
from statsmerging.records.hashing import key_of, state_sha256
from statsmerging.zoo.checkpoints import write_weights
from statsmerging.zoo.continuation import continue_from, forget
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.trainer import create_trainer
from statsmerging.zoo.training import adamw
from statsmerging.zoo.weights import FileTensors, Weights


class Distillation(L.LightningModule):
    """KL(teacher ‖ student) at a temperature, on unlabeled images.

    Args:
        student: the backbone, trained; images N × 3 × S × S → features N × D.
        head: of the task, frozen.
        teacher_scores: of the teacher on the same images, N × C.
        preprocess: of the student.
        settings: of the optimisation.
    """

    def __init__(
        self,
        student: nn.Module,
        head: nn.Module,
        teacher_scores: Tensor,
        preprocess: Preprocess,
        settings: StudentSettings,
    ) -> None:
        super().__init__()
        # Neither running statistics nor dropout: a student differs from θ₀ in its weights alone,
        # and a continued distillation draws nothing that the killed one drew before.
        self.student = student.eval()
        self.head = head
        self.teacher_scores = teacher_scores
        self.preprocess = preprocess
        self.settings = settings
        self.labels = LabelSettings(kind="soft", temperature=settings.temperature)

    def training_step(self, batch: UnlabeledBatch) -> Tensor:
        scores = self.head(self.student(self.preprocess.normalise(batch.images)))
        targets = self.teacher_scores[batch.indices.cpu()].to(scores)
        loss = distillation_loss(scores, targets, self.labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return adamw(self, self.settings)


def student_weights(
    zoo: Zoo,
    task: str,
    images: ImageSplit,
    teacher_scores: Tensor,
    settings: StudentSettings,
    *,
    cache: Cache,
    accelerator: str,
) -> Weights:
    """Weights of one task in the zoo's architecture, from θ₀ and a teacher's scores.

    They are made once and then read from the cache. What was killed continues from its last
    checkpoint, whichever run asks next, and ends at the same weights.

    Args:
        zoo: the target: its backbone, θ₀, and the task's frozen head.
        images: unlabeled images in the target's geometry; their labels are not read.
        teacher_scores: the teacher's scores on them, N × C.
    """
    key = key_of(
        [
            zoo.architecture,
            zoo.pretrained.sha256,
            state_sha256(zoo.experts[task].head.state_dict()),
            state_sha256({"scores": teacher_scores}),
            images.key,
            zoo.preprocess.key,
            settings.model_dump_json(),
        ]
    )
    checkpoint = cache.path("students", f"{key}.ckpt")

    def write(path: Path) -> None:
        student = deepcopy(zoo.backbone).requires_grad_(True)
        student.load_state_dict(zoo.pretrained)
        module = Distillation(
            student, zoo.experts[task].head, teacher_scores, zoo.preprocess, settings
        )
        _fit(module, task, images.images, checkpoint, accelerator)
        write_weights(path, student.state_dict())

    weights = Weights(cache.load("students", f"{key}.safetensors", write, FileTensors))
    with suppress(OSError):  # another user's
        forget(checkpoint)
    return weights


def _fit(
    module: Distillation, task: str, images: Tensor, checkpoint: Path, accelerator: str
) -> None:
    """Train the module's student, from the checkpoint where there is one."""
    settings = module.settings
    data = UnlabeledDataModule(
        {task: images},
        images_per_task=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        seed=settings.seed,
    )
    trainer = create_trainer(
        accelerator=accelerator,
        epochs=settings.steps // settings.steps_per_epoch,
        description=f"distilling {task}",
        checkpoint=checkpoint,
        clip=1.0,
    )
    trainer.fit(module, data, ckpt_path=continue_from(checkpoint), weights_only=True)
