"""The setup of a run: from the config to images and experts, and to the record at its end."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from statsmerging.app.config import Config
from statsmerging.app.loggers.run_log import RunLog
from statsmerging.app.plugins import chosen_methods, plugin_records
from statsmerging.app.run import Run
from statsmerging.app.terminal import show_table
from statsmerging.choices import SPLITS
from statsmerging.data.images import SuiteImages, check_disjoint
from statsmerging.data.open_suite import open_suite
from statsmerging.data.suites import Suite
from statsmerging.errors import UserError, gather_missing
from statsmerging.learning.chosen_methods import FixedMethod, LearnedMethod
from statsmerging.learning.finetuning import finetuned_zoo
from statsmerging.learning.heterogeneous import (
    check_names,
    heterogeneous_experts,
    with_students,
)
from statsmerging.learning.problem import MergingProblem
from statsmerging.runs.manifest import file_records, file_stamps, manifest
from statsmerging.runs.outcomes import write_outcomes
from statsmerging.runs.results import MethodResult, run_results
from statsmerging.scoring.scores import Scorer
from statsmerging.store.cache import Cache
from statsmerging.zoo.backbones import preprocess_of
from statsmerging.zoo.experts import Zoo, ZooFiles, locate, zoo_from_files
from statsmerging.zoo.network import inference_device
from statsmerging.zoo.settings import FinetunedZooSettings

log = logging.getLogger(__name__)

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class ScoredRun(Run):
    """One run of a job that scores models and leaves results.

    Attributes:
        run_log: the loggers of the run.
    """

    run_log: RunLog

    @cached_property
    def cache(self) -> Cache:
        return Cache(Path(self.config.cache))

    @cached_property
    def methods(self) -> list[LearnedMethod | FixedMethod]:
        """The methods of the run, in the order of its table."""
        return chosen_methods(self.config)

    def prepare(self) -> MergingProblem:
        """Open the suite, prove its splits disjoint, and get the experts.

        Raises:
            UserError: anything wrong with the suite or the zoo.
            MergingError: weights that do not match the backbone, or NaN.
        """
        config, cache = self.config, self.cache
        settle_process(config.threads)
        inference_device(config.accelerator)  # refuse a missing GPU before anything is computed
        suite, files = self._suite_and_files()
        check_names(config, suite)
        _check_batches(config, suite)
        images = SuiteImages(suite, preprocess_of(config.backbone), cache, config.corruption)
        kept = {"train": _trains_here(config), "validation": True, "test": True}
        check_disjoint(
            {
                task.name: {
                    split: images.digests(task, split, kept=kept[split]) for split in SPLITS
                }
                for task in suite.tasks
            }
        )
        zoo = _zoo(config, files, images, cache)
        experts = heterogeneous_experts(config, suite, cache)
        return MergingProblem(
            images,
            with_students(config, zoo, images, experts, cache),
            Scorer(images, cache),
            cache,
            _weight_files(config, files),
            config.learning,
            experts,
        )

    def finish(
        self,
        problem: MergingProblem,
        methods: Mapping[str, MethodResult],
        *,
        warnings: Sequence[str] = (),
        complete: bool = True,
        **facts: Any,
    ) -> None:
        """Write results, outcomes and manifest, then show and log the table.

        Args:
            warnings: one line each, for the log and the results.
            complete: ``False`` if something failed: no manifest is written then, so that the
                same command tries again.
            facts: further entries of the results.
        """
        config, directory = self.config, self.directory
        for line in warnings:
            log.warning("%s", line)
        results = run_results(
            methods,
            run_hash=directory.run_hash,
            suite=config.suite.name,
            backbone=config.backbone.label,
            corruption=config.corruption.label,
            seed=config.seed,
            stamps=config.stamps,
            **_distilled(problem, methods),
            **facts,
            warnings=list(warnings),
        )
        record = manifest(
            config.model_dump(mode="json"),
            run_hash=directory.run_hash,
            weights=problem.weight_hashes,
            files=file_records(problem.weight_files),
            plugins=plugin_records(config.plugins),
            data=problem.images.fingerprints(),
            preprocessing=problem.preprocessing,
            inputs=file_stamps(config.input_paths),
            stamps=config.stamps,
        )
        write_outcomes(directory.outcomes, methods)
        directory.finish(results.as_json(), record if complete else None)
        show_table(results, directory.path)
        self.run_log.results(results)
        log.info("results: %s", directory.path)

    def _suite_and_files(self) -> tuple[Suite, ZooFiles]:
        """The suite and the files of the zoo; one message names everything that is missing."""
        config = self.config
        suites: list[Suite] = []
        files: list[ZooFiles] = []

        def find_files() -> None:
            names = [task.name for task in suites[0].tasks] if suites else _named_tasks(config)
            if not isinstance(config.zoo, FinetunedZooSettings):
                distilled = config.heterogeneous.experts
                files.append(locate(config.zoo, [name for name in names if name not in distilled]))

        gather_missing(lambda: suites.append(open_suite(config.suite, self.cache)), find_files)
        return suites[0], files[0] if files else ZooFiles()


def settle_process(threads: int | None) -> None:
    """Set the number of CPU threads (``None``: torch's own), and keep freed memory for reuse.

    glibc's malloc hands large freed blocks back to the system, and a step that merges, and drops,
    all weights of a network then spends as long on page faults as on the merge itself.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never
        if not libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30):
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the limit of older versions


def _named_tasks(config: Config) -> list[str]:
    """The tasks that the config names, or all of the catalogue."""
    seen = config.suite.tasks if config.suite.tasks is not None else list(config.suite.catalogue)
    return [*seen, *config.suite.unseen]


def _check_batches(config: Config, suite: Suite) -> None:
    """Refuse steps of more images than any task has, which would only fill the memory.

    A smaller task, or one of whose images not all are learned from, may repeat its images.

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


def _trains_here(config: Config) -> bool:
    """Whether experts, heads or students are made of the training images."""
    return (
        isinstance(config.zoo, FinetunedZooSettings)
        or config.heads.kind == "probed"
        or (
            bool(config.heterogeneous.experts)
            and config.heterogeneous.distillation.images == "train"
        )
    )


def _zoo(config: Config, files: ZooFiles, images: SuiteImages, cache: Cache) -> Zoo:
    options: Any = {"cache": cache, "accelerator": config.accelerator}
    if isinstance(config.zoo, FinetunedZooSettings):
        options["untrained"] = config.heterogeneous.experts
        return finetuned_zoo(config.backbone, config.zoo, config.heads, images, **options)
    return zoo_from_files(config.backbone, files, config.heads, images, **options)


def _weight_files(config: Config, files: ZooFiles) -> dict[str, Path]:
    named = {"backbone.weights": config.backbone.weights_file, **files.by_name}
    for task, expert in config.heterogeneous.experts.items():
        named[f"{task}/teacher"] = expert.file
        named[f"{task}/teacher/backbone.weights"] = expert.backbone.weights_file
    return {name: file for name, file in named.items() if file is not None}


def _distilled(
    problem: MergingProblem, methods: Mapping[str, MethodResult]
) -> dict[str, dict[str, dict[str, str | float]]]:
    """The results' entry ``distilled``: accuracy of each teacher and of its student."""
    if not problem.heterogeneous:
        return {}
    teachers, students = methods["before_distillation"].seen, methods["individual"].seen
    return {
        "distilled": {
            task: {
                "architecture": expert.architecture,
                "teacher": teachers[task].accuracy,
                "student": students[task].accuracy,
                "images": students[task].images,
                "unlabeled_images": expert.learned_from,
            }
            for task, expert in problem.heterogeneous.items()
        }
    }
