"""Top-1 accuracy of a model on every task's test split."""

from __future__ import annotations

from collections.abc import Sequence

from torchmetrics.functional.classification import multiclass_stat_scores

from statsmerging.data.image_cache import SuiteImages
from statsmerging.data.suites import Task
from statsmerging.evaluation.candidate import Candidate
from statsmerging.records.cache import Cache
from statsmerging.runs.results import MethodResult, TaskAccuracy
from statsmerging.zoo.class_scores import class_scores


class Scorer:
    """Scores models on a suite's test images.

    Args:
        images: the suite; its test splits are opened when the first model is scored.
        cache: scores of weights that were scored before.
    """

    def __init__(self, images: SuiteImages, cache: Cache) -> None:
        self.images = images
        self.cache = cache

    def score(self, candidate: Candidate) -> MethodResult:
        """Accuracy on all tasks the candidate has weights for."""
        suite = self.images.suite
        return MethodResult(
            seen=self._accuracies(candidate, suite.seen),
            unseen=self._accuracies(candidate, suite.unseen),
        )

    def _accuracies(self, candidate: Candidate, tasks: Sequence[Task]) -> dict[str, TaskAccuracy]:
        return {
            task.name: self._accuracy(candidate, task)
            for task in tasks
            if task.name in candidate.weights
        }

    def _accuracy(self, candidate: Candidate, task: Task) -> TaskAccuracy:
        split = self.images.split(task, "test")
        scores = class_scores(
            candidate.zoo,
            candidate.weights_of(task.name),
            task.name,
            split,
            self.cache if candidate.keep else None,
            description=f"{candidate.title} on {task.name}",
        )
        right = multiclass_stat_scores(
            scores, split.labels, num_classes=scores.shape[1], average="micro"
        )[0]
        return TaskAccuracy(int(right) / len(split), len(split))
