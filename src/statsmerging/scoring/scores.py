"""From weights to numbers: class scores, accuracy, agreement with the teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from statsmerging.data.images import ImageSplit, SuiteImages
from statsmerging.data.suites import Task
from statsmerging.merging.errors import MergingError
from statsmerging.runs.results import MethodResult, TaskAccuracy
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of, state_sha256
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.weights import Weights


@dataclass(frozen=True)
class Candidate:
    """A model, or one model per task, to be scored.

    Attributes:
        title: shown beside progress bars.
        zoo: architecture, heads and preprocessing.
        weights: task → backbone weights; a task without weights is not scored.
        keep: cache the scores; of no use for weights that only this run makes.
    """

    title: str
    zoo: Zoo
    weights: Mapping[str, Mapping[str, Tensor]]
    keep: bool = True

    @classmethod
    def of_state(
        cls, title: str, zoo: Zoo, state: Mapping[str, Tensor], *, keep: bool = True
    ) -> Self:
        """One static model for all tasks of the zoo."""
        return cls(title, zoo, dict.fromkeys(zoo.experts, Weights.of(state)), keep)

    @classmethod
    def individual(cls, zoo: Zoo) -> Self:
        """Every expert on its own task: the upper row of a table."""
        weights = {task: expert.state for task, expert in zoo.experts.items()}
        return cls("individual", zoo, weights)

    def weights_of(self, task: str) -> Weights:
        """Backbone weights for one task."""
        return Weights.of(self.weights[task])


def class_scores(
    zoo: Zoo,
    weights: Weights,
    task: str,
    split: ImageSplit,
    cache: Cache | None,
    *,
    description: str,
) -> Tensor:
    """Scores of one task's head on the features of the backbone with the given weights.

    Args:
        weights: of the backbone.
        split: the images to score.
        cache: keeps the scores of weights that are scored again; ``None``: they are not kept.
        description: shown beside the progress bar.

    Returns:
        N × C, float32; from the cache if these weights scored these images before.

    Raises:
        MergingError: NaN or infinite scores; the arg-max would be one class for all images.
    """
    head = zoo.experts[task].head.cpu()

    def compute() -> Tensor:
        features = zoo.network.features(weights, split.images, description=description)
        return finite_scores(head, features, description)

    if cache is None:
        return compute()
    parts = [zoo.network.architecture, weights.sha256, state_sha256(head.state_dict()), split.key]
    key = key_of([*parts, zoo.preprocess.key])
    return cache.load(
        "class_scores",
        f"{key}.safetensors",
        write=lambda path: save_file({"scores": compute()}, path),
        read=lambda path: load_file(path)["scores"],
    )


def finite_scores(head: nn.Module, features: Tensor, description: str) -> Tensor:
    """Scores of a head, N × C.

    Raises:
        MergingError: some are NaN or infinite; the message begins with the description.
    """
    scores: Tensor = head(features)
    if not bool(torch.isfinite(scores).all()):
        raise MergingError(f"{description}: NaN or infinite scores; did the learning diverge?")
    return scores


def share_of_same_class(scores: Tensor, labels: Tensor) -> float:
    """Share of images on which the arg-max of the scores, N × C, is the label, N."""
    return float((scores.argmax(dim=1) == labels).float().mean())


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
        right = scores.argmax(dim=1) == split.labels
        return TaskAccuracy(int(right.sum()) / len(split), len(split), right.numpy())


class TeacherAgreement:
    """How often a model predicts the teacher's class. Ground truth is not used.

    Args:
        images: task name → unlabeled images.
        teachers: task name → the teacher's scores on them, N × C.
        cache: scores of weights that were scored before.
    """

    def __init__(
        self, images: Mapping[str, ImageSplit], teachers: Mapping[str, Tensor], cache: Cache
    ) -> None:
        self.images = images
        self.labels = {task: scores.argmax(dim=1) for task, scores in teachers.items()}
        self.cache = cache

    @property
    def count(self) -> int:
        """How many images are looked at."""
        return sum(map(len, self.images.values()))

    def of(self, candidate: Candidate) -> float:
        """Share of images on which model and teacher agree, averaged over tasks."""
        return fmean(self.by_task(candidate).values())

    def by_task(self, candidate: Candidate) -> dict[str, float]:
        """Task → share of its images on which model and teacher agree.

        Raises:
            MergingError: NaN or infinite scores.
        """
        shares = {}
        for task, split in self.images.items():
            scores = class_scores(
                candidate.zoo,
                candidate.weights_of(task),
                task,
                split,
                self.cache if candidate.keep else None,
                description=f"{candidate.title} on {task}, agreement",
            )
            shares[task] = share_of_same_class(scores, self.labels[task])
        return shares


@dataclass(frozen=True)
class TeacherQuality:
    """One teacher on the learning images of its task.

    Attributes:
        label_agreement: share of images on which its class is the ground truth. Far above its
            test accuracy, it shows that the teacher was trained on these images. ``None`` if some
            of them are published without a label.
        confidence: mean of its highest class probability.
        images: number of images.
    """

    label_agreement: float | None
    confidence: float
    images: int


def teacher_quality(
    teachers: Mapping[str, Tensor], images: Mapping[str, ImageSplit]
) -> dict[str, TeacherQuality]:
    """Quality of every teacher; ground truth is read here to report it, after all learning.

    Args:
        teachers: task → its teacher's scores, N × C.
        images: task → its learning images.
    """
    return {
        task: TeacherQuality(
            label_agreement=_share_right(scores, images[task].labels),
            confidence=float(scores.softmax(dim=1).amax(dim=1).mean()),
            images=len(scores),
        )
        for task, scores in teachers.items()
    }


def _share_right(scores: Tensor, labels: Tensor) -> float | None:
    if bool((labels < 0).any()):
        return None
    return share_of_same_class(scores, labels)
