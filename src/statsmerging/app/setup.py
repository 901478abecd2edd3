"""The setup of a run: from the config to images, experts, task vectors and scorer."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from statsmerging.app.config import Config
from statsmerging.app.loggers.run_log import RunLog
from statsmerging.app.plugins import plugin_records
from statsmerging.app.terminal import show_table
from statsmerging.data.embedded_suite import embedded_suite
from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.hub import hub_suite
from statsmerging.data.images import ImageSplit, SuiteImages, check_disjoint
from statsmerging.data.published_data import DatasetAddress
from statsmerging.data.settings import LearningDataSettings
from statsmerging.data.suites import SPLITS, Suite
from statsmerging.errors import UserError, gather_missing
from statsmerging.learning.finetuning import finetuned_zoo
from statsmerging.learning.heterogeneous import (
    OtherExpert,
    check_names,
    other_experts,
    with_students,
)
from statsmerging.learning.labels import Teacher
from statsmerging.learning.settings import LabelsFrom
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.methods.ties import trimmed_bank
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.manifest import file_records, file_stamps, manifest
from statsmerging.runs.results import MethodResult, results_json
from statsmerging.scoring.scores import Candidate, Scorer
from statsmerging.store.cache import Cache
from statsmerging.zoo.backbones import preprocess_of
from statsmerging.zoo.experts import Zoo
from statsmerging.zoo.file_zoo import ZooFiles, locate, zoo_from_files
from statsmerging.zoo.inference import inference_device
from statsmerging.zoo.settings import FinetunedZooSettings

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1


_M_MMAP_THRESHOLD = -3


def settle_process(threads: int | None) -> None:
    """Set the number of CPU threads (None: torch's own), and keep freed memory for reuse."""
    if threads is not None:
        torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have malloc hold on to large freed blocks.

    It hands them back to the system otherwise, and a step that merges, and drops, all weights of a
    network then spends as long on page faults as on the merge itself.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
    if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30):
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the limit of older versions


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


def create_bank(config: Config, bench: Workbench, directory: RunDirectory) -> TaskVectorBank:
    """Task vectors on the device of the zoo, or in a memory-mapped file.

    Raises:
        MergingError: weights that do not fit together, or NaN.
    """
    memory_map = directory.path / "task_vectors.bin" if config.merge.memory_map else None
    bank = TaskVectorBank.from_state_dicts(
        bench.zoo.pretrained,
        {task.name: bench.zoo.experts[task.name].state for task in bench.suite.seen},
        dtype=getattr(torch, config.merge.precision),
        device="cpu" if memory_map else bench.zoo.device,
        memory_map=memory_map,
    )
    if memory_map is not None:
        memory_map.unlink()  # the mapping lives as long as the process, the file needs no name
    return bank


def at_density(bank: TaskVectorBank, density: float | None) -> TaskVectorBank:
    """The task vectors a method learns on: whole ones, or trimmed as in TIES.

    Args:
        density: share of entries kept of each task vector; ``None`` keeps all.
    """
    return bank if density is None else trimmed_bank(bank, density)


def stamps(config: Config) -> list[str]:
    """One short sentence for each; none for an honest run."""
    released = any(entry.get("learner") == "released_code" for entry in config.method.values())
    departures = {
        "learned from test images": config.learning.split == "test",
        "learned from ground-truth labels": config.labels.kind == "ground_truth" or released,
        "trained the classification heads": released,
        "chose the epoch by test accuracy": released,
    }
    return [f"not label-free: {name}" for name, departs in departures.items() if departs]


log = logging.getLogger(__name__)


def finish(
    config: Config,
    directory: RunDirectory,
    run_log: RunLog,
    bench: Workbench,
    methods: Mapping[str, MethodResult],
    *,
    warnings: Sequence[str] = (),
    complete: bool = True,
    **facts: Any,
) -> None:
    """Write ``results.json`` and ``manifest.json``, then show and log the table.

    Args:
        warnings: what looks wrong, a line each, for the log and the results.
        complete: ``False`` where something failed: there is no manifest then, so that the same
            command tries again.
        facts: further numbers that belong into the results.
    """
    for line in warnings:
        log.warning("%s", line)
    departures = stamps(config)
    results = results_json(
        methods,
        run_hash=directory.run_hash,
        suite=config.suite.name,
        backbone=config.backbone.label,
        corruption=config.corruption.label,
        seed=config.seed,
        stamps=departures,
        **_distilled(bench, methods),
        **facts,
        warnings=list(warnings),
    )
    record = manifest(
        config.model_dump(mode="json"),
        run_hash=directory.run_hash,
        weights=bench.weight_hashes,
        files=file_records(bench.weight_files),
        plugins=plugin_records(config.plugins),
        data=bench.images.fingerprints(),
        preprocessing=bench.preprocessing,
        inputs=file_stamps(config.input_paths),
        stamps=departures,
    )
    directory.finish(results, record if complete else None)
    show_table(results)
    run_log.results(results)
    log.info("results: %s", directory.path)


def _distilled(bench: Workbench, methods: Mapping[str, MethodResult]) -> dict[str, Any]:
    """The entry ``distilled``: what became of the experts of other architectures."""
    if not bench.others:
        return {}
    teachers, students = methods["before_distillation"].seen, methods["individual"].seen
    return {
        "distilled": {
            task: {
                "architecture": other.architecture,
                "teacher": teachers[task].accuracy,
                "student": students[task].accuracy,
                "images": students[task].images,
                "unlabeled_images": other.learned_from,
            }
            for task, other in bench.others.items()
        }
    }
