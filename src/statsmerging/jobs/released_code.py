"""The published code's way to learn, which uses test images and ground truth: for comparison."""

from __future__ import annotations

import torch

from statsmerging.distillation.released_code import BestOnTest, ReleasedCode
from statsmerging.distillation.settings import LabelSettings
from statsmerging.distillation.teachers import learning_targets
from statsmerging.jobs.learning import (
    Learned,
    LearnedMethod,
    Learning,
    fit,
    merged_model,
)
from statsmerging.merging.released_code import ReleasedCodeLearner
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.errors import UserError
from statsmerging.zoo.heads import Head


def learn_as_released(
    learning: Learning, method: LearnedMethod, bank: TaskVectorBank
) -> tuple[Learned, dict[str, Head]]:
    """Coefficients, L × K, and trained heads of the epoch that is best on test images.

    Raises:
        UserError: several processes, the best epoch is chosen in one; or accumulation task by
            task, which gives the learner its gradient and the heads none.
    """
    config, bench = learning.config, learning.bench
    if config.trainer.devices > 1:
        raise UserError(f"method {method.name} needs trainer.devices=1")
    if config.trainer.accumulate == "per_task":
        raise UserError(f"method {method.name} needs trainer.accumulate=joint")
    labels = LabelSettings(kind="ground_truth")
    heads = {task: bench.zoo.experts[task].head for task in bank.tasks}
    learner = ReleasedCodeLearner(bank, generator=torch.Generator().manual_seed(config.seed))
    module = ReleasedCode(
        learner,
        merged_model(learning, method, bank),
        heads,
        learning_targets(labels, bench.teachers("student"), bench.cache),
        bench.zoo.preprocess,
        labels,
        method.settings.objective,
        config.trainer.model_copy(update={"learning_rate": method.settings.learning_rate}),
        period=max(1, config.trainer.steps // 5),  # 100 of 500
    )
    tested = {task.name: bench.images.split(task, "test") for task in bench.suite.seen}
    best = BestOnTest(tested)
    norm = fit(module, learning, method, [best])
    learned = Learned(learner, best.best["coefficients"], norm)
    return learned, best.best_heads(heads)
