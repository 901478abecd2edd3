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

    def score(self, state: Mapping[str, Tensor], method: str) -> MethodResult:
        """Accuracy of one model on all tasks.

        Args:
            state: backbone weights by tensor name.
            method: shown beside the progress bar.
        """
        return self._score({task.name: state for task in self.images.suite.tasks}, method)

    def score_individual(self) -> MethodResult:
        """Accuracy of every expert on its own task: the upper row of a table."""
        states = {task: expert.state for task, expert in self.zoo.experts.items()}
        return self._score(states, "individual")

    def _score(self, states: Mapping[str, Mapping[str, Tensor]], method: str) -> MethodResult:
        suite = self.images.suite
        return MethodResult(
            seen={t.name: self._accuracy(states[t.name], t, method) for t in suite.seen},
            unseen={t.name: self._accuracy(states[t.name], t, method) for t in suite.unseen},
        )

    def _accuracy(self, state: Mapping[str, Tensor], task: Task, method: str) -> TaskAccuracy:
        split = self.images.split(task, "test")
        scores = class_scores(
            self.zoo, state, task.name, split, self.cache, description=f"{method} on {task.name}"
        )
        right = multiclass_stat_scores(
            scores, split.labels, num_classes=scores.shape[1], average="micro"
        )[0]
        return TaskAccuracy(int(right) / len(split), len(split))
