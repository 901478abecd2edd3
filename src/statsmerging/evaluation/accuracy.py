"""Top-1 accuracy of a set of backbone weights on every task's test split."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torchmetrics.functional.classification import multiclass_stat_scores

from statsmerging.data.image_cache import SuiteImages
from statsmerging.data.suites import Task
from statsmerging.records.cache import Cache
from statsmerging.records.results import MethodResult, TaskAccuracy
from statsmerging.zoo.class_scores import class_scores
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.weights import Weights


class Scorer:
    """Scores backbone weights with the zoo's heads on a suite's test images.

    Args:
        zoo: heads and preprocessing.
        images: the suite; its test splits are opened when the first weights are scored.
        cache: scores of weights that were scored before.
    """

    def __init__(self, zoo: Zoo, images: SuiteImages, cache: Cache) -> None:
        self.zoo = zoo
        self.images = images
        self.cache = cache

    def score(self, state: Mapping[str, Tensor], method: str, *, keep: bool = True) -> MethodResult:
        """Accuracy of one model on all tasks.

        Args:
            state: backbone weights by tensor name.
            method: shown beside the progress bar.
            keep: cache the scores; not worth it for weights that only this run makes.
        """
        weights = Weights(state)
        models = {task.name: weights for task in self.images.suite.tasks}
        return self._score(models, method, self.cache if keep else None)

    def score_individual(self) -> MethodResult:
        """Accuracy of every expert on its own task: the upper row of a table."""
        models = {task: expert.state for task, expert in self.zoo.experts.items()}
        return self._score(models, "individual", self.cache)

    def _score(
        self, models: Mapping[str, Weights], method: str, cache: Cache | None
    ) -> MethodResult:
        def accuracy(task: Task) -> TaskAccuracy:
            return self._accuracy(models[task.name], task, method, cache)

        suite = self.images.suite
        return MethodResult(
            seen={task.name: accuracy(task) for task in suite.seen},
            unseen={task.name: accuracy(task) for task in suite.unseen},
        )

    def _accuracy(
        self, weights: Weights, task: Task, method: str, cache: Cache | None
    ) -> TaskAccuracy:
        split = self.images.split(task, "test")
        scores = class_scores(
            self.zoo, weights, task.name, split, cache, description=f"{method} on {task.name}"
        )
        right = multiclass_stat_scores(
            scores, split.labels, num_classes=scores.shape[1], average="micro"
        )[0]
        return TaskAccuracy(int(right) / len(split), len(split))
