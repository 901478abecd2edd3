"""The LightningModule: the merged model as student, the learner as its only trainable part."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from statsmerging.choices import Objective, Trains
from statsmerging.learning.data_module import UnlabeledBatch
from statsmerging.learning.labels import distillation_loss, entropy
from statsmerging.learning.optimiser import learner_optimiser
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.merging.errors import check_choice
from statsmerging.merging.merged_model import MergedModel
from statsmerging.zoo.heads import Head, TrainableHead


class StatsMerging(L.LightningModule):
    """Learns merging coefficients from teachers' pseudo-labels on unlabeled images.

    Args:
        learner: gives the coefficients when it is called; trained.
        student: the merged model; frozen but for its coefficients, and offsets if it has any.
        heads: task name → frozen head, or the one from which a trained head starts.
        targets: task name → scores to be learned on its images, N × C: ``learning_targets``.
        normalise: a batch of images → what the backbone takes.
        labels: how teachers' scores become targets.
        objective: ``teacher_labels``, or ``entropy`` (no teacher is used).
        settings: of the optimisation.
        trains: which of learner and heads learn; the rest stays as it starts.
    """

    #: Beginnings of what checkpoints hold: all else is frozen, and made again.
    saved: tuple[str, ...] = ("learner.", "student.offsets.")

    def __init__(
        self,
        learner: nn.Module,
        student: MergedModel,
        heads: Mapping[str, nn.Module],
        targets: Mapping[str, Tensor],
        normalise: Callable[[Tensor], Tensor],
        labels: LabelsSettings,
        objective: Objective,
        settings: TrainerSettings,
        trains: Trains = "coefficients",
    ) -> None:
        super().__init__()
        check_choice("objective", objective, Objective)
        self.learner = learner
        self.student = student
        self.tasks = student.bank.tasks
        starts = [heads[task] for task in student.bank.tasks]
        frozen = trains == "coefficients"
        self.heads = nn.ModuleList(starts if frozen else map(_trainable, starts))
        self.saved = self.saved if frozen else (*self.saved, "heads.")
        self.learner.requires_grad_(trains != "heads")
        self.targets = [targets[task] for task in student.bank.tasks]
        self.normalise = normalise
        self.labels = labels
        self.objective: Objective = objective
        self.settings = settings
        #: Of the learner in the last step; NaN before the first.
        self.gradient_norm = torch.tensor(math.nan)
        self.strict_loading = False

    def training_step(self, batch: UnlabeledBatch) -> Tensor:
        coefficients = self.coefficients()
        if self.settings.accumulate == "joint":
            losses = self._joint_losses(batch, coefficients)
            loss = torch.stack(losses).mean()
        else:
            losses, loss = self._per_task_losses(batch, coefficients)
        several = self._processes > 1
        self.log("loss", loss.detach(), prog_bar=True, sync_dist=several)
        for task, value in zip(self.student.bank.tasks, losses, strict=True):
            self.log(f"loss/{task}", value.detach(), sync_dist=several)
        return loss

    def coefficients(self) -> Tensor:
        """λ of this step, differentiable in the learner."""
        coefficients: Tensor = self.learner()
        return coefficients

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser moves."""
        weights = [*self.learner.parameters(), *self._offsets, *self.heads.parameters()]
        return [weight for weight in weights if weight.requires_grad]

    def trained_heads(self) -> dict[str, Head]:
        """Task → its head as it is now; empty if heads are frozen."""
        pairs = zip(self.tasks, self.heads, strict=True)
        return {task: head.frozen() for task, head in pairs if isinstance(head, TrainableHead)}

    @property
    def passes(self) -> int:
        """Forward and backward passes of every image of a step."""
        return 2 if self.settings.sharpness > 0 else 1

    @property
    def _offsets(self) -> list[nn.Parameter]:
        """What is trained besides the learner: nothing, unless ``vectors=trained``."""
        return [weight for weight in self.student.parameters() if weight.requires_grad]

    @property
    def _processes(self) -> int:
        """How many processes share the images of a step."""
        return 1 if self._trainer is None else self.trainer.world_size

    @property
    def _images_per_task(self) -> int:
        """Images of each task that this process sees in a step."""
        return self.settings.images_per_task // self._processes

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        norms = [w.grad.norm() for w in self.learner.parameters() if w.grad is not None]
        self.gradient_norm = torch.stack(norms).norm() if norms else torch.zeros(())
        self.log("learner_gradient_norm", self.gradient_norm)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = learner_optimiser(self.trained(), self.settings)
        scheduler = CosineAnnealingLR(optimizer, T_max=self.settings.steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {
            name: value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(self.saved)
        }
        checkpoint["gradient_norm"] = float(self.gradient_norm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.gradient_norm = torch.tensor(checkpoint.get("gradient_norm", math.nan))

    def _joint_losses(self, batch: UnlabeledBatch, coefficients: Tensor) -> list[Tensor]:
        """One merge, one forward over all images, each task's slice through its own head."""
        features = self.student(self.normalise(batch.images), coefficients)
        slices = features.split(self._images_per_task)
        indices = batch.indices.split(self._images_per_task)
        return [
            self._task_loss(task, part, rows)
            for task, part, rows in zip(self.student.bank.tasks, slices, indices, strict=True)
        ]

    def _per_task_losses(
        self, batch: UnlabeledBatch, coefficients: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Same losses and gradient as ``_joint_losses``, with one task's activations at a time.

        The merged weights are leaves that collect the gradient of every task; one product with
        the task vectors then carries it to the coefficients.
        """
        merged = self.student.weights(coefficients)
        leaves = {name: weight.detach().requires_grad_() for name, weight in merged.items()}
        size = self._images_per_task
        tasks = self.student.bank.tasks
        parts = zip(tasks, batch.images.split(size), batch.indices.split(size), strict=True)
        losses = []
        for task, images, rows in parts:
            features = self.student.call(leaves, self.normalise(images))
            loss = self._task_loss(task, features, rows)
            (loss / len(tasks)).backward()
            losses.append(loss.detach())
        # A tensor that the forward pass does not use has collected nothing.
        used = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        learned = [coefficients, *self._offsets]
        gradients = torch.autograd.grad(
            [merged[name] for name in used], learned, list(used.values()), materialize_grads=True
        )
        # A function of λ with this value and this gradient, for Lightning to differentiate.
        pairs = zip(gradients, learned, strict=True)
        linear = torch.stack([(gradient * each).sum() for gradient, each in pairs]).sum()
        return losses, torch.stack(losses).mean() + linear - linear.detach()

    def _task_loss(self, task: str, features: Tensor, rows: Tensor) -> Tensor:
        number = self.tasks.index(task)
        if self.objective == "entropy":
            return entropy(self.heads[number](features))
        heads = [self.heads[number]] if self.labels.restrict == "task" else self.heads
        scores = torch.cat([head(features) for head in heads], dim=1)
        return distillation_loss(scores, self.targets[number][rows.cpu()].to(scores), self.labels)


def _trainable(head: nn.Module) -> TrainableHead:
    assert isinstance(head, Head)  # only linear ones are trained
    return TrainableHead(head)
