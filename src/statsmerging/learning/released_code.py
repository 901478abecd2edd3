"""The published code's way to learn, which uses test images and ground truth: for comparison.

As in the published script for eight tasks: six statistics of the stacked task vectors, a private
network with a softmax for each layer, Xavier's start with zero biases, AdamW with a weight decay of
1e-4, a learning rate that follows a cosine step by step, falls to 0 in a fifth of the steps and
rises again, heads that learn from labels too, and the epoch that is best on test images.

Otherwise than there:

- The script cuts the gradient of its learner off, so that its coefficients stay as they were drawn
  and its heads alone learn (here ``trains="heads"``); in its other scripts the learner learns.
- The loss is the mean over the tasks and not their sum, which AdamW does not notice.
- Images come in shuffled passes; the script shuffles anew in each step, and may draw one again.
- Coefficients are compared on test every ``trainer.steps_per_epoch`` steps; every 50 there.
- Statistics are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from statsmerging.choices import Objective, Trains, VectorCoefficients
from statsmerging.data.images import ImageSplit, in_batches
from statsmerging.errors import UserError
from statsmerging.learning.chosen_methods import LearnedMethod
from statsmerging.learning.fit import LearningStep
from statsmerging.learning.labels import learning_targets
from statsmerging.learning.learned_coefficients import LearnedCoefficients
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.merged_model import MergedModel
from statsmerging.merging.statistics import top_singular_values
from statsmerging.runs.cost import Cost
from statsmerging.zoo.heads import Head

#: Singular values above this count as rank in the published code, whatever the layer's size.
RANK_THRESHOLD = 1e-3


class ReleasedCodeLearner(nn.Module):
    """Coefficients L × K from stacked statistics, as the published code makes them.

    Args:
        bank: the task vectors.
        hidden: width of both hidden layers.
        generator: source of the initial weights; torch's global one if ``None``.
    """

    kind = "released_code"
    vectors: VectorCoefficients = "learned"
    #: Its statistics do not belong to single experts.
    predicts = False
    statistics: Tensor

    def __init__(
        self, bank: TaskVectorBank, hidden: int = 256, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("statistics", stacked_statistics(bank).float(), persistent=False)
        layers, features = self.statistics.shape
        widths = (features, hidden, hidden, len(bank.tasks))
        sizes = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(layers, *size) for size in sizes)
        self.biases = nn.ParameterList(torch.empty(layers, 1, size[1]) for size in sizes)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = math.sqrt(6 / (weight.shape[1] + weight.shape[2]))  # Xavier's, layer by layer
            nn.init.uniform_(weight, -bound, bound, generator=generator)
            nn.init.zeros_(bias)

    def forward(self) -> Tensor:
        """The coefficients λ, L × K; those of a layer sum to 1."""
        hidden = self.statistics.unsqueeze(1)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = torch.relu(hidden @ weight + bias)
        return torch.softmax(hidden @ self.weights[-1] + self.biases[-1], dim=-1).squeeze(1)


@torch.no_grad()
def stacked_statistics(bank: TaskVectorBank) -> Tensor:
    """Six statistics of the K × n matrix of each layer's task vectors: L × 6, float64.

    Mean, unbiased deviation and variance, norm, largest singular value, and the number of singular
    values above ``RANK_THRESHOLD``.
    """
    rows = []
    for _, vectors in bank.layer_vectors():
        matrix = vectors.double()
        variance = matrix.var(correction=min(1, matrix.numel() - 1))
        singular_values = top_singular_values(matrix.unsqueeze(0), len(matrix)).squeeze(0)
        rows.append(
            torch.stack(
                [
                    matrix.mean(),
                    variance.sqrt(),
                    variance,
                    matrix.norm(),
                    singular_values[0],
                    (singular_values > RANK_THRESHOLD).sum().double(),
                ]
            )
        )
    return torch.stack(rows).cpu()


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

    def __init__(
        self,
        learner: ReleasedCodeLearner,
        student: MergedModel,
        heads: Mapping[str, Head],
        targets: Mapping[str, Tensor],
        normalise: Callable[[Tensor], Tensor],
        labels: LabelsSettings,
        objective: Objective,
        settings: TrainerSettings,
        *,
        period: int,
        trains: Trains = "coefficients_and_heads",
    ) -> None:
        super().__init__(
            learner, student, heads, targets, normalise, labels, objective, settings, trains
        )
        self.period = period

    @property
    def passes(self) -> int:
        """Forward and backward passes of every image of a step: the published optimiser's."""
        return 1

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = AdamW(self.trained(), lr=self.settings.learning_rate, weight_decay=WEIGHT_DECAY)
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
            batches = in_batches(split.images, BATCH, "accuracy of an epoch", announced=False)
            for images, labels in zip(batches, split.labels.split(BATCH), strict=True):
                inputs = module.normalise(images.to(coefficients.device))
                predicted = head(module.student.call(weights, inputs)).argmax(dim=1)
                right += int((predicted.cpu() == labels).sum())
            shares.append(right / len(split))
        return sum(shares) / len(shares)


def learn_as_released(
    step: LearningStep, method: LearnedMethod, bank: TaskVectorBank
) -> LearnedCoefficients:
    """Coefficients, L × K, and heads of the epoch that is best on test images.

    Raises:
        UserError: several processes (the best epoch is chosen in one), or accumulation task by
            task (which gives the learner its gradient and the heads none).
    """
    settings, problem = step.settings, step.problem
    if settings.trainer.devices > 1:
        raise UserError(f"method {method.name} needs trainer.devices=1")
    if settings.trainer.accumulate == "per_task":
        raise UserError(f"method {method.name} needs trainer.accumulate=joint")
    labels = LabelsSettings(kind="ground_truth")
    heads = {task: problem.zoo.experts[task].head for task in bank.tasks}
    meter = step.meter()
    with meter.phase("statistics"):
        learner = ReleasedCodeLearner(bank, generator=torch.Generator().manual_seed(settings.seed))
    module = ReleasedCode(
        learner,
        step.student(method, bank),
        heads,
        learning_targets(labels, problem.teachers("learning", "student"), problem.cache),
        problem.zoo.preprocess.normalise,
        labels,
        method.settings.objective,
        method.trainer(settings.trainer),
        period=max(1, settings.trainer.steps // 5),  # 100 of 500
        trains=method.settings.trains,
    )
    tested = {task.name: problem.images.split(task, "test") for task in problem.suite.seen}
    best = BestOnTest(tested)
    fitted = step.fit(module, method, [best])
    epochs = settings.trainer.steps // settings.trainer.steps_per_epoch
    meter.count(Cost(forward_passes=epochs * sum(map(len, tested.values()))))
    # Without a gradient none is expected, so its norm is no sign of trouble.
    norm = math.nan if method.settings.trains == "heads" else fitted.gradient_norm
    return LearnedCoefficients(
        learner,
        bank,
        best.best["coefficients"],
        norm,
        heads=best.best_heads(heads),
        expense=meter.expense + fitted.expense,
    )
