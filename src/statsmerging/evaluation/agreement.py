"""Agreement with the teachers on unlabeled images: the rule that chooses hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.cache import Cache
from statsmerging.zoo.class_scores import class_scores
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.weights import Weights


class TeacherAgreement:
    """How often a model predicts the teacher's class. Ground truth is not used.

    Args:
        zoo: heads and preprocessing.
        images: task name → unlabeled images.
        teachers: task name → the teacher's scores on them, N × C.
        cache: scores of weights that were scored before.
    """

    def __init__(
        self,
        zoo: Zoo,
        images: Mapping[str, ImageSplit],
        teachers: Mapping[str, Tensor],
        cache: Cache,
    ) -> None:
        self.zoo = zoo
        self.images = images
        self.labels = {task: scores.argmax(dim=1) for task, scores in teachers.items()}
        self.cache = cache

    def of(self, state: Mapping[str, Tensor], method: str, *, keep: bool = True) -> float:
        """Share of images on which model and teacher agree, averaged over tasks.

        Args:
            state: backbone weights by tensor name.
            method: shown beside the progress bar.
            keep: cache the scores; not worth it for weights that only this run makes.
        """
        weights = Weights(state)
        shares = []
        for task, split in self.images.items():
            scores = class_scores(
                self.zoo,
                weights,
                task,
                split,
                self.cache if keep else None,
                description=f"{method} on {task}, agreement",
            )
            shares.append(float((scores.argmax(dim=1) == self.labels[task]).float().mean()))
        return sum(shares) / len(shares)


def most_agreeing(
    merge: Callable[[float], dict[str, Tensor]], grid: Sequence[float], agreement: TeacherAgreement
) -> float:
    """The value of the grid whose merged model agrees most with the teachers; the first of equals.

    Args:
        merge: value → state dict of the merged model.
    """
    return max(grid, key=lambda value: agreement.of(merge(value), f"value {value}"))
