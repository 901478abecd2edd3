"""What every job starts from: the suite's images and the zoo the config names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from statsmerging.data.embedded_suite import embedded_suite
from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.hub_suite import hub_suite
from statsmerging.data.image_cache import ImageSplit, SuiteImages
from statsmerging.data.published_data import DatasetAddress
from statsmerging.data.split_checks import check_disjoint
from statsmerging.data.suites import SPLITS, Suite
from statsmerging.distillation.settings import LabelsFrom
from statsmerging.distillation.teachers import Teacher
from statsmerging.evaluation.accuracy import Scorer
from statsmerging.evaluation.candidate import Candidate
from statsmerging.jobs.heterogeneous import OtherExpert, check_names, other_experts, with_students
from statsmerging.jobs.process import settle_process
from statsmerging.jobs.schema import Config, LearningDataSettings
from statsmerging.records.cache import Cache
from statsmerging.records.errors import UserError, gather_missing
from statsmerging.runs.results import MethodResult
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
        others: seen task → its expert of another architecture; the zoo holds its student.
    """

    images: SuiteImages
    zoo: Zoo
    scorer: Scorer
    cache: Cache
    weight_files: Mapping[str, Path]
    learning: LearningDataSettings
    others: Mapping[str, OtherExpert] = field(default_factory=dict)

    @property
    def suite(self) -> Suite:
        return self.images.suite

    def bounds(self) -> dict[str, MethodResult]:
        """The rows between which merged models are expected."""
        pretrained = Candidate.of_state("pre-trained", self.zoo, self.zoo.pretrained)
        individual = self.scorer.score(Candidate.individual(self.zoo))
        bounds = {"pretrained": self.scorer.score(pretrained), "individual": individual}
        if self.others:
            teachers = {name: it.test_accuracy(self.cache) for name, it in self.others.items()}
            seen = {**individual.seen, **teachers}
            bounds["before_distillation"] = replace(individual, seen=seen)
        return bounds

    def with_roles_swapped(self) -> Workbench:
        """The same with the unseen tasks as seen ones, and the other way round."""
        suite = replace(self.suite, seen=self.suite.unseen, unseen=self.suite.seen)
        return replace(self, images=self.images.of(suite), others={})

    def learning_images(self) -> dict[str, ImageSplit]:
        """Seen task → the images from which the coefficients are learned."""
        return {
            task.name: self._chosen(self.images.split(task, self.learning.split))
            for task in self.suite.seen
        }

    def teachers(self, labels_from: LabelsFrom) -> dict[str, Teacher]:
        """Seen task → who labels its learning images.

        Args:
            labels_from: for the tasks whose expert had another architecture.
        """
        teachers = {
            task: Teacher(self.zoo, split) for task, split in self.learning_images().items()
        }
        if labels_from == "teacher":
            for name, other in self.others.items():
                teacher = other.on(self.learning.split)
                teachers[name] = replace(teacher, images=self._chosen(teacher.images))
        return teachers

    def _chosen(self, split: ImageSplit) -> ImageSplit:
        """The images of a split that are learned from, the same ones in every geometry."""
        count = self.learning.images
        return split if count is None else split.draw(count, self.learning.seed)

    @property
    def weight_hashes(self) -> dict[str, str]:
        """sha256 of all weights: of the zoo, and of the experts of other architectures."""
        hashes = dict(self.zoo.hashes)
        for task, other in self.others.items():
            for part in ("backbone", "head"):
                hashes[f"{task}/teacher/{part}"] = other.zoo.hashes[f"{task}/{part}"]
        return hashes

    @property
    def preprocessing(self) -> dict[str, dict[str, Any]]:
        """How the backbone's images were made, and those of experts of other architectures."""
        teachers = {f"{task}/teacher": other.zoo for task, other in self.others.items()}
        return {
            name: asdict(zoo.preprocess) for name, zoo in {"backbone": self.zoo, **teachers}.items()
        }

    @property
    def other_architectures(self) -> dict[str, str]:
        """Seen task → architecture of the expert from which its own one was distilled."""
        return {task: other.architecture for task, other in self.others.items()}


def prepare(config: Config) -> Workbench:
    """Open the suite, prove its splits disjoint, and get the experts.

    Raises:
        UserError: anything wrong with the suite or the zoo.
        MergingError: weights that do not match the backbone, or NaN.
    """
    settle_process(config.threads)
    inference_device(config.accelerator)  # refuse a missing GPU before anything is computed
    cache = Cache(Path(config.cache))
    suite, files = _open(config, cache)
    check_names(config, suite)
    _check_batches(config, suite)
    images = SuiteImages(suite, preprocess_of(config.backbone), cache, config.corruption)
    check_disjoint(
        {task.name: {split: images.split(task, split) for split in SPLITS} for task in suite.tasks}
    )
    zoo = _zoo(config, files, images, cache)
    others = other_experts(config, suite, cache)
    return Workbench(
        images,
        with_students(config, zoo, images, others, cache),
        Scorer(images, cache),
        cache,
        _weight_files(config, files),
        config.learning,
        others,
    )


def _check_batches(config: Config, suite: Suite) -> None:
    """Refuse steps of more images than any task has, which would only fill the memory.

    A smaller task repeats its images, and so do all under ``learning.images``: that is asked for.

    Raises:
        UserError: names the largest value, and the task that has so many.
    """
    split = config.learning.split
    count, largest = max((len(task.sources[split]), task.name) for task in suite.seen)
    asked = config.trainer.images_per_task
    if asked > count:
        raise UserError(
            f"trainer.images_per_task={asked}: at most {count}, all {split} images of {largest}, "
            "the largest task"
        )


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
    address = DatasetAddress(image=suite.image, label=suite.label)
    return folder_suite(
        suite.root, suite.tasks, suite.unseen, cache=arrow, name=suite.name, address=address
    )


def _open(config: Config, cache: Cache) -> tuple[Suite, ZooFiles]:
    """The suite and the files of the zoo; what is missing of both is said in one message."""
    suites: list[Suite] = []
    files: list[ZooFiles] = []

    def find_files() -> None:
        names = [task.name for task in suites[0].tasks] if suites else _named_tasks(config)
        if not isinstance(config.zoo, FinetunedZooSettings):
            others = config.heterogeneous.experts
            files.append(locate(config.zoo, [name for name in names if name not in others]))

    gather_missing(lambda: suites.append(open_suite(config, cache)), find_files)
    return suites[0], files[0] if files else ZooFiles()


def _weight_files(config: Config, files: ZooFiles) -> dict[str, Path]:
    named = {"backbone.weights": config.backbone.weights_file, **files.by_name}
    for task, other in config.heterogeneous.experts.items():
        named[f"{task}/teacher"] = other.file
        named[f"{task}/teacher/backbone.weights"] = other.backbone.weights_file
    return {name: file for name, file in named.items() if file is not None}


def _named_tasks(config: Config) -> list[str]:
    """The tasks the config names; all there are, where it names none."""
    seen = config.suite.tasks if config.suite.tasks is not None else list(config.suite.catalogue)
    return [*seen, *config.suite.unseen]


def _zoo(config: Config, files: ZooFiles, images: SuiteImages, cache: Cache) -> Zoo:
    options: Any = {"cache": cache, "accelerator": config.accelerator}
    if isinstance(config.zoo, FinetunedZooSettings):
        options["untrained"] = config.heterogeneous.experts
        return finetuned_zoo(config.backbone, config.zoo, config.heads, images, **options)
    return zoo_from_files(config.backbone, files, config.heads, images, **options)
