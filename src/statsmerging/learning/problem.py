"""What a run merges: its images, its experts, their teachers, and the scorer of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from statsmerging.choices import LabelsFrom, LearningPart
from statsmerging.data.images import ImageSplit, SuiteImages
from statsmerging.data.settings import LearningSettings
from statsmerging.data.suites import Suite
from statsmerging.learning.heterogeneous import HeterogeneousExpert
from statsmerging.learning.known_directions import KnownDirections
from statsmerging.learning.labels import Teacher
from statsmerging.learning.settings import MergeSettings
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.ties import trimmed_bank
from statsmerging.merging.running_statistics import running_statistics
from statsmerging.merging.state_dicts import task_vector
from statsmerging.runs.results import MethodResult
from statsmerging.scoring.scores import Candidate, Scorer
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.weights import Weights


@dataclass(frozen=True)
class MergingProblem:
    """The images and the experts of one run.

    Attributes:
        weight_files: ``backbone.weights`` and the files of the zoo, by name.
        learning: which images the coefficients are learned from.
        heterogeneous: seen task → its expert of another architecture; the zoo holds the student
            that was distilled from it.
    """

    images: SuiteImages
    zoo: Zoo
    scorer: Scorer
    cache: Cache
    weight_files: Mapping[str, Path]
    learning: LearningSettings
    heterogeneous: Mapping[str, HeterogeneousExpert] = field(default_factory=dict)

    @cached_property
    def directions(self) -> KnownDirections:
        """Singular directions of the experts' task vectors."""
        return KnownDirections(self.cache)

    @property
    def suite(self) -> Suite:
        return self.images.suite

    def bank(self, settings: MergeSettings, folder: Path) -> TaskVectorBank:
        """Task vectors of the seen tasks: on the zoo's device, or in a memory-mapped file.

        Args:
            folder: where the mapped file is made; the mapping lives as long as the process, so
                the file loses its name at once.

        Raises:
            MergingError: weights that do not fit together, or NaN.
        """
        memory_map = folder / "task_vectors.bin" if settings.memory_map else None
        bank = TaskVectorBank.from_state_dicts(
            self.zoo.pretrained,
            {task.name: self.zoo.experts[task.name].state for task in self.suite.seen},
            dtype=getattr(torch, settings.precision),
            device="cpu" if memory_map else self.zoo.device,
            memory_map=memory_map,
        )
        if memory_map is not None:
            memory_map.unlink()
        return bank

    def bounds(self) -> dict[str, MethodResult]:
        """The rows between which merged models are expected: pre-trained and individual models."""
        pretrained = Candidate.of_state("pre-trained", self.zoo, self.zoo.pretrained)
        individual = self.scorer.score(Candidate.individual(self.zoo))
        bounds = {"pretrained": self.scorer.score(pretrained), "individual": individual}
        if self.heterogeneous:
            teachers = {
                name: expert.test_accuracy(self.cache)
                for name, expert in self.heterogeneous.items()
            }
            seen = {**individual.seen, **teachers}
            bounds["before_distillation"] = replace(individual, seen=seen)
        return bounds

    def with_roles_swapped(self) -> MergingProblem:
        """The same with the unseen tasks as seen ones, and the other way round."""
        suite = replace(self.suite, seen=self.suite.unseen, unseen=self.suite.seen)
        return replace(self, images=self.images.of(suite), heterogeneous={})

    def unlabeled_images(self, part: LearningPart) -> dict[str, ImageSplit]:
        """Seen task → the images that coefficients are learned from, or those held out of that."""
        return {
            task.name: self._part(self.images.split(task, self.learning.split), part)
            for task in self.suite.seen
        }

    def teachers(self, part: LearningPart, labels_from: LabelsFrom) -> dict[str, Teacher]:
        """Seen task → the teacher that labels its unlabeled images.

        Args:
            labels_from: of the tasks whose expert had another architecture: that expert
                (``teacher``), or its student.
        """
        teachers = {
            task: Teacher(self.zoo, split) for task, split in self.unlabeled_images(part).items()
        }
        if labels_from == "teacher":
            for name, expert in self.heterogeneous.items():
                teacher = expert.on(self.learning.split)
                teachers[name] = replace(teacher, images=self._part(teacher.images, part))
        return teachers

    def _part(self, split: ImageSplit, part: LearningPart) -> ImageSplit:
        """One part of the unlabeled images, the same ones in every geometry."""
        if split.key not in self._parts:  # a part is a copy of its images: one is enough
            learning = self.learning
            rest, held = split.held_out(learning.held_out) if learning.held_out else (split, None)
            if learning.images is not None:
                rest = rest.draw(learning.images, learning.seed)
            self._parts[split.key] = {"learning": rest, "held_out": rest if held is None else held}
        return self._parts[split.key][part]

    @cached_property
    def _parts(self) -> dict[str, dict[LearningPart, ImageSplit]]:
        return {}

    @property
    def moved_statistics(self) -> list[str]:
        """Seen tasks whose expert has other running statistics than the pre-trained backbone."""
        start = self.zoo.pretrained
        names = running_statistics(self.zoo.network.module)

        def moved(expert: Weights) -> bool:
            return any(bool(task_vector(start[name], expert[name]).any()) for name in names)

        return [t.name for t in self.suite.seen if moved(self.zoo.experts[t.name].state)]

    @property
    def weight_hashes(self) -> dict[str, str]:
        """sha256 of all weights: of the zoo, and of the experts of other architectures."""
        hashes = dict(self.zoo.hashes)
        for task, expert in self.heterogeneous.items():
            for part in ("backbone", "head"):
                hashes[f"{task}/teacher/{part}"] = expert.zoo.hashes[f"{task}/{part}"]
        return hashes

    @property
    def preprocessing(self) -> dict[str, dict[str, Any]]:
        """Preprocessing of the backbone, and of the experts of other architectures."""
        teachers = {
            f"{task}/teacher": expert.zoo.preprocess for task, expert in self.heterogeneous.items()
        }
        named = {"backbone": self.zoo.preprocess, **teachers}
        return {name: asdict(preprocess) for name, preprocess in named.items()}

    @property
    def heterogeneous_architectures(self) -> dict[str, str]:
        """Seen task → architecture of the expert from which its student was distilled."""
        return {task: expert.architecture for task, expert in self.heterogeneous.items()}


def at_density(bank: TaskVectorBank, density: float | None) -> TaskVectorBank:
    """The task vectors a method learns on: whole ones, or trimmed as in TIES.

    Args:
        density: share of entries kept of each task vector; ``None`` keeps all.
    """
    return bank if density is None else trimmed_bank(bank, density)
