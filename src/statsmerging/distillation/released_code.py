"""The learning step of the published code: ground truth, trained heads, the best epoch on test.

Apart from the label-free ``StatsMerging`` on purpose. Every table it touches is stamped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.preprocess import Preprocess
from statsmerging.distillation.module import StatsMerging
from statsmerging.distillation.settings import LabelSettings, LearningSettings, Objective
from statsmerging.merging.functional import MergedModel
from statsmerging.merging.released_code import ReleasedCodeLearner
from statsmerging.zoo.heads import Head

#: Images in one forward pass of the test.
BATCH = 256

#: Of AdamW, on learner and heads, as published.
WEIGHT_DECAY = 1e-4


class ReleasedCode(StatsMerging):
    """Learner and heads learn together, after a cosine that falls and rises with a period.

    Args:
        heads: task name → head from which its trained one starts.
        targets: task name → ground truth of its images, as scores, N × C.
        period: steps after which the learning rate has fallen to 0, and rises again.

    The others are those of ``StatsMerging``.
    """

    saved = ("learner.", "heads.")

    def __init__(
        self,
        learner: ReleasedCodeLearner,
        student: MergedModel,
        heads: Mapping[str, Head],
        targets: Mapping[str, Tensor],
        preprocess: Preprocess,
        labels: LabelSettings,
        objective: Objective,
        settings: LearningSettings,
        *,
        period: int,
    ) -> None:
        super().__init__(learner, student, heads, targets, preprocess, labels, objective, settings)
        self.period = period
        self.heads = nn.ModuleList(_TrainableHead(heads[task]) for task in student.bank.tasks)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [*self.learner.parameters(), *self.heads.parameters()]
        optimizer = AdamW(trained, lr=self.settings.learning_rate, weight_decay=WEIGHT_DECAY)
        scheduler = CosineAnnealingLR(optimizer, T_max=self.period)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class BestOnTest(Callback):
    """Keeps coefficients and heads of the epoch with the highest average test accuracy.

    Args:
        images: task → its test images with their labels.
    """

    def __init__(self, images: Mapping[str, ImageSplit]) -> None:
        self.images = images
        self.best: dict[str, Any] = {"accuracy": -1.0}

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, ReleasedCode)
        with torch.no_grad():
            coefficients = module.learner()
            accuracy = self._accuracy(module, coefficients)
        if accuracy > self.best["accuracy"]:
            heads = [
                {name: value.detach().cpu().clone() for name, value in head.state_dict().items()}
                for head in module.heads
            ]
            self.best = {
                "accuracy": accuracy,
                "coefficients": coefficients.detach().cpu(),
                "heads": heads,
            }

    def state_dict(self) -> dict[str, Any]:
        """For a run that continues."""
        return self.best

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self.best = state_dict

    def best_heads(self, heads: Mapping[str, Head]) -> dict[str, Head]:
        """The heads as they were in the best epoch; ``heads`` are those they started from."""
        return {
            task: Head(state["weight"], state["bias"], normalises=heads[task].normalises)
            for task, state in zip(self.images, self.best["heads"], strict=True)
        }

    def _accuracy(self, module: ReleasedCode, coefficients: Tensor) -> float:
        weights = module.student.weights(coefficients)
        shares = []
        for head, split in zip(module.heads, self.images.values(), strict=True):
            right = 0
            for images, labels in zip(
                split.images.split(BATCH), split.labels.split(BATCH), strict=True
            ):
                inputs = module.preprocess.normalise(images.to(coefficients.device))
                predicted = head(module.student.call(weights, inputs)).argmax(dim=1)
                right += int((predicted.cpu() == labels).sum())
            shares.append(right / len(split))
        return sum(shares) / len(shares)


class _TrainableHead(Head):
    """A head whose weights learn."""

    def __init__(self, head: Head) -> None:
        super().__init__(head.weight, head.bias, normalises=head.normalises)
        for name in ("weight", "bias"):
            start = getattr(self, name).clone()
            delattr(self, name)
            self.register_parameter(name, nn.Parameter(start))
