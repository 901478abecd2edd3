"""What every job starts from: the suite's images and the zoo the config names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from statsmerging.data.embedded_suite import embedded_suite
from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.hub_suite import hub_suite
from statsmerging.data.image_cache import ImageSplit, SuiteImages
from statsmerging.data.split_checks import check_disjoint
from statsmerging.data.suites import SPLITS, Suite
from statsmerging.evaluation.accuracy import Scorer
from statsmerging.evaluation.candidate import Candidate
from statsmerging.jobs.schema import Config, LearningDataSettings
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError, gather_missing
from statsmerging.records.results import MethodResult
from statsmerging.zoo.backbones import preprocess_of
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.file_zoo import ZooFiles, locate, zoo_from_files
from statsmerging.zoo.finetuned import finetuned_zoo
from statsmerging.zoo.inference import inference_device
from statsmerging.zoo.settings import FinetunedZooSettings


@dataclass(frozen=True)
class Workbench:
    """Images, zoo and scorer of one run, all from the config.

    Attributes:
        weight_files: ``backbone.weights`` and the files of the zoo, by name.
        learning: which images the learner learns from.
    """

    images: SuiteImages
    zoo: Zoo
    scorer: Scorer
    cache: Cache
    weight_files: Mapping[str, Path]
    learning: LearningDataSettings

    @property
    def suite(self) -> Suite:
        return self.images.suite

    def bounds(self) -> dict[str, MethodResult]:
        """The rows between which merged models are expected."""
        pretrained = Candidate.of_state("pre-trained", self.zoo, self.zoo.pretrained)
        return {
            "pretrained": self.scorer.score(pretrained),
            "individual": self.scorer.score(Candidate.individual(self.zoo)),
        }

    def with_roles_swapped(self) -> Workbench:
        """The same with the unseen tasks as seen ones, and the other way round."""
        suite = replace(self.suite, seen=self.suite.unseen, unseen=self.suite.seen)
        return replace(self, images=self.images.of(suite))

    def learning_images(self) -> dict[str, ImageSplit]:
        """Seen task → the images from which the coefficients are learned."""
        splits = {
            task.name: self.images.split(task, self.learning.split) for task in self.suite.seen
        }
        count = self.learning.images
        if count is None:
            return splits
        return {task: split.draw(count, self.learning.seed) for task, split in splits.items()}


def prepare(config: Config) -> Workbench:
    """Open the suite, prove its splits disjoint, and get the experts.

    Raises:
        UserError: anything wrong with the suite or the zoo.
        MergingError: weights that do not match the backbone, or NaN.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    inference_device(config.accelerator)  # refuse a missing GPU before anything is computed
    cache = Cache(Path(config.cache))
    suite, files = _open(config, cache)
    images = SuiteImages(suite, preprocess_of(config.backbone), cache, config.corruption)
    check_disjoint(
        {task.name: {split: images.split(task, split) for split in SPLITS} for task in suite.tasks}
    )
    zoo = _zoo(config, files, images, cache)
    scorer, weight_files = Scorer(images, cache), _weight_files(config, files)
    return Workbench(images, zoo, scorer, cache, weight_files, config.learning)


def open_suite(config: Config, cache: Cache) -> Suite:
    """The tasks the config names, seen and unseen.

    Raises:
        UserError: anything wrong with them, or files that are missing.
    """
    settings = config.suite
    suite = _whole_suite(config, cache)
    if settings.split is not None:
        suite = suite.hold_out(settings.splits[settings.split])
    if settings.first is not None:
        if settings.first > len(suite.seen):
            raise UserError(
                f"suite.first={settings.first}: the suite has {len(suite.seen)} seen tasks"
            )
        suite = suite.first(settings.first)
    return suite


def _whole_suite(config: Config, cache: Cache) -> Suite:
    suite = config.suite
    if suite.kind == "embedded":
        return embedded_suite(suite.tasks, suite.unseen)
    arrow = cache.root / "datasets"
    if suite.kind == "hub":
        return hub_suite(
            suite.name, suite.catalogue, suite.root, suite.tasks, suite.unseen, cache=arrow
        )
    if suite.root is None:
        raise UserError("suite.root: a folder with one subfolder a task is needed")
    return folder_suite(suite.root, suite.tasks, suite.unseen, cache=arrow, name=suite.name)


def _open(config: Config, cache: Cache) -> tuple[Suite, ZooFiles]:
    """The suite and the files of the zoo; what is missing of both is said in one message."""
    suites: list[Suite] = []
    files: list[ZooFiles] = []

    def find_files() -> None:
        names = [task.name for task in suites[0].tasks] if suites else _named_tasks(config)
        if not isinstance(config.zoo, FinetunedZooSettings):
            files.append(locate(config.zoo, names))

    gather_missing(lambda: suites.append(open_suite(config, cache)), find_files)
    return suites[0], files[0] if files else ZooFiles()


def _weight_files(config: Config, files: ZooFiles) -> dict[str, Path]:
    backbone = config.backbone.weights_file
    return {**({} if backbone is None else {"backbone.weights": backbone}), **files.by_name}


def _named_tasks(config: Config) -> list[str]:
    """The tasks the config names; all there are, where it names none."""
    seen = config.suite.tasks if config.suite.tasks is not None else list(config.suite.catalogue)
    return [*seen, *config.suite.unseen]


def _zoo(config: Config, files: ZooFiles, images: SuiteImages, cache: Cache) -> Zoo:
    options: Any = {"cache": cache, "accelerator": config.accelerator}
    if isinstance(config.zoo, FinetunedZooSettings):
        return finetuned_zoo(config.backbone, config.zoo, config.heads, images, **options)
    return zoo_from_files(config.backbone, files, config.heads, images, **options)
