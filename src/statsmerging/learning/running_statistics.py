"""Running statistics of merged models, as ``merge.running_statistics`` asks for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from statsmerging.choices import RunningStatistics
from statsmerging.data.images import ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.cost import Meter
from statsmerging.learning.merged import Merged, StateDict
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import TaskModels
from statsmerging.merging.running_statistics import recalibrated, running_statistics
from statsmerging.progress import track
from statsmerging.runs.cost import Cost
from statsmerging.scoring.evidence import IMAGES_PER_TASK
from statsmerging.scoring.scores import Candidate, TeacherAgreement
from statsmerging.zoo.network import BATCH
from statsmerging.zoo.weights import Weights


@dataclass(frozen=True)
class Recalibration:
    """Gives merged models the running statistics that the config asks for.

    Attributes:
        chosen: ``merge.running_statistics``.
        images: seen task → its unlabeled learning images.
        agreement: tells the agreement with the teachers, by which ``auto`` chooses.
        meter: makes a meter for the work.
    """

    chosen: RunningStatistics
    images: Mapping[str, ImageSplit]
    agreement: Callable[[], TeacherAgreement]
    meter: Callable[[], Meter]

    def of(self, merged: Merged) -> Merged:
        """The model with its running statistics; the same one without batch normalisation.

        Raises:
            UserError: a task with a single learning image, which has no variance.
        """
        network = merged.candidate.zoo.network
        if self.chosen == "averaged" or not running_statistics(network.module):
            return merged
        if self.chosen == "auto":
            return self._better(merged)
        return self._recalibrated(merged, per_task=self.chosen == "per_task")

    def _better(self, merged: Merged) -> Merged:
        """The model as it is, or with statistics of its images if that agrees more."""
        other, meter = self._recalibrated(merged, per_task=False), self.meter()
        agreement = self.agreement()
        with meter.phase("tuning"):
            shares = [_agreement(agreement, each.candidate) for each in (merged, other)]
        meter.count(Cost(forward_passes=2 * agreement.count))
        as_it_is = replace(merged, about={**merged.about, "running_statistics": "averaged"})
        better = other if shares[1] > shares[0] else as_it_is
        return replace(better, own=other.own + meter.expense)  # both were made

    def _recalibrated(self, merged: Merged, *, per_task: bool) -> Merged:
        """The model with statistics of its images: of all tasks, or for each task of its own.

        A method that gives every task a model of its own has the latter in any case.
        """
        meter = self.meter()
        with meter.phase("merging"):
            if per_task or isinstance(merged.candidate.weights, TaskModels):
                changed = self._per_task(merged, meter)
            else:
                changed = self._pooled(merged, meter)
        return replace(changed, own=merged.own + meter.expense)

    def _pooled(self, merged: Merged, meter: Meter) -> Merged:
        candidate = merged.candidate
        state = next(iter(candidate.weights.values()))
        found = self._statistics(candidate, state, list(self.images), meter)
        one = Weights({**state, **found})
        return replace(
            merged,
            candidate=replace(candidate, weights=dict.fromkeys(candidate.weights, one)),
            about=_about(merged, running_statistics="pooled"),
            state=None if merged.state is None else one,
        )

    def _per_task(self, merged: Merged, meter: Meter) -> Merged:
        candidate, tasks = merged.candidate, tuple(self.images)
        found = {
            task: self._statistics(candidate, candidate.weights[task], [task], meter)
            for task in tasks
        }

        def build(task: str) -> dict[str, Tensor]:
            return {**candidate.weights[task], **found[task]}

        returns = merged.about["returns"]
        return replace(
            merged,
            candidate=replace(candidate, weights=TaskModels(tasks, build)),
            about=_about(
                merged,
                running_statistics="per_task",
                returns="adapters" if returns == "state dict" else returns,
            ),
            state=None,
        )

    def _statistics(
        self, candidate: Candidate, state: StateDict, tasks: Sequence[str], meter: Meter
    ) -> dict[str, Tensor]:
        """Running statistics of one model on learning images of some tasks."""
        parts = [self.images[task].sample(IMAGES_PER_TASK).images for task in tasks]
        for task, part in zip(tasks, parts, strict=True):
            if len(part) < 2:
                raise UserError(
                    f"merge.running_statistics={self.chosen}: {task} has {len(part)} learning "
                    "image; at least 2 are needed, or choose averaged"
                )
        zoo, rows = candidate.zoo, mixed_rows([len(part) for part in parts])
        images = sum(len(own) for batch in rows for own in batch)
        meter.count(Cost(images=images, forward_passes=images))

        def batches() -> Iterator[Tensor]:
            description = f"running statistics of {candidate.title}"
            for batch in track(rows, description, total=len(rows)):
                mixed = torch.cat([part[own] for part, own in zip(parts, batch, strict=True)])
                yield zoo.preprocess.normalise(mixed.to(zoo.device))

        return recalibrated(zoo.network.frozen(), state, batches())


def mixed_rows(sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Batches in which every task has the same number of images, up to one.

    The images of a smaller task are repeated, so that no task counts more than another.

    Args:
        sizes: number of images of each task.

    Returns:
        For each batch, the rows of each task's images.
    """
    longest = max(sizes)
    batches = min(math.ceil(longest * len(sizes) / BATCH), longest)
    repeated = (torch.arange(longest) % size for size in sizes)
    return list(zip(*(rows.tensor_split(batches) for rows in repeated), strict=True))


def _agreement(agreement: TeacherAgreement, candidate: Candidate) -> float:
    """Agreement with the teachers; below that of any model for one whose scores are not finite."""
    try:
        return agreement.of(candidate)
    except MergingError:
        return -1.0


def _about(merged: Merged, **changed: str) -> dict[str, Any]:
    """What is known of a method whose models have seen the learning images."""
    needs = merged.about["needs"]
    return {
        **merged.about,
        "needs": "unlabeled images" if needs == "nothing" else needs,
        **changed,
    }
