"""What every job starts from: the suite's images and the zoo the config names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from statsmerging.data.embedded_suite import embedded_suite
from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.image_cache import ImageSplit, SuiteImages
from statsmerging.data.split_checks import check_disjoint
from statsmerging.data.suites import SPLITS, Suite
from statsmerging.evaluation.accuracy import Scorer
from statsmerging.jobs.schema import Config
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError
from statsmerging.zoo.backbones import preprocess_of
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.finetuned import finetuned_zoo
from statsmerging.zoo.inference import inference_device
from statsmerging.zoo.local import local_zoo


@dataclass(frozen=True)
class Workbench:
    """Images, zoo and scorer of one run, all from the config."""

    images: SuiteImages
    zoo: Zoo
    scorer: Scorer
    cache: Cache

    @property
    def suite(self) -> Suite:
        return self.images.suite

    def learning_images(self) -> dict[str, ImageSplit]:
        """Seen task → its validation images, from which the coefficients are learned."""
        return {task.name: self.images.split(task, "validation") for task in self.suite.seen}


def prepare(config: Config) -> Workbench:
    """Open the suite, prove its splits disjoint, and get the experts.

    Raises:
        UserError: anything wrong with the suite or the zoo.
        MergingError: weights that do not match the backbone, or NaN.
    """
    inference_device(config.accelerator)  # refuse a missing GPU before anything is computed
    cache = Cache(Path(config.cache))
    suite = _suite(config, cache)
    images = SuiteImages(suite, preprocess_of(config.backbone), cache)
    check_disjoint(
        {task.name: {split: images.split(task, split) for split in SPLITS} for task in suite.tasks}
    )
    zoo = _zoo(config, images, cache)
    return Workbench(images, zoo, Scorer(zoo, images, cache), cache)


def _suite(config: Config, cache: Cache) -> Suite:
    suite = config.suite
    if suite.kind == "embedded":
        return embedded_suite(suite.tasks, suite.unseen)
    if suite.root is None:
        raise UserError("suite.root: a folder with one subfolder a task is needed")
    return folder_suite(
        suite.root, suite.tasks, suite.unseen, cache=cache.root / "datasets", name=suite.name
    )


def _zoo(config: Config, images: SuiteImages, cache: Cache) -> Zoo:
    zoo = config.zoo
    if zoo.name == "local":
        if zoo.root is None:
            raise UserError("zoo.root: a folder with TASK.safetensors files is needed")
        return local_zoo(
            config.backbone, zoo.root, images.suite.tasks, accelerator=config.accelerator
        )
    if zoo.pretraining is None or zoo.finetuning is None:
        raise UserError("zoo.pretraining and zoo.finetuning are needed by zoo=finetuned")
    return finetuned_zoo(
        config.backbone,
        images,
        pretraining=zoo.pretraining,
        finetuning=zoo.finetuning,
        cache=cache,
        accelerator=config.accelerator,
    )
