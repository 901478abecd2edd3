"""``job=merge``: get the zoo, learn the coefficients, score every method, export, show."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.distillation.teachers import teacher_scores
from statsmerging.evaluation.agreement import TeacherAgreement, most_agreeing
from statsmerging.jobs.closing import finish
from statsmerging.jobs.learning import learn_coefficients
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench, prepare
from statsmerging.merging.methods import simple_average, task_arithmetic
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.coefficients import write_coefficients
from statsmerging.records.results import MethodResult
from statsmerging.records.run_directory import RunDirectory
from statsmerging.zoo.checkpoints import write_weights

log = logging.getLogger(__name__)


def run(config: Config, directory: RunDirectory) -> None:
    """Merge the experts of the suite's seen tasks and compare with the baselines."""
    bench = prepare(config)
    bank = _bank(config, bench, directory)
    learning_images = bench.learning_images()
    teachers = teacher_scores(bench.zoo, learning_images, bench.cache)

    coefficients = learn_coefficients(config, bench, bank, learning_images, teachers, directory)
    merged = bank.merge(coefficients, config.merge.anchor)
    write_coefficients(directory.coefficients, coefficients, bank.layers, bank.tasks)
    write_weights(directory.merged, merged)

    agreement = _agreement(config, bench, learning_images)
    tuned = most_agreeing(
        lambda scale: task_arithmetic(bank, scale), config.tuning.task_arithmetic, agreement
    )
    log.info("task arithmetic agrees most with the teachers at λ = %s", tuned)

    def score(state: Mapping[str, Tensor], method: str, *, keep: bool = True) -> MethodResult:
        result = bench.scorer.score(state, method, keep=keep)
        return replace(result, teacher_agreement=agreement.of(state, method, keep=keep))

    methods: dict[str, MethodResult] = {
        "pretrained": score(bench.zoo.pretrained, "pre-trained"),
        "individual": bench.scorer.score_individual(),
        "simple_average": score(simple_average(bank), "simple average"),
        "task_arithmetic": score(task_arithmetic(bank), "task arithmetic"),
        "task_arithmetic_tuned": score(task_arithmetic(bank, tuned), "task arithmetic, tuned"),
        "stats_merging": score(merged, "StatsMerging", keep=False),
    }
    finish(
        config,
        directory,
        bench,
        methods,
        granularity=config.granularity,
        learner=config.learner.kind,
        labels=config.labels.kind,
        task_arithmetic_tuned_scale=tuned,
    )


def _agreement(
    config: Config, bench: Workbench, learning_images: Mapping[str, ImageSplit]
) -> TeacherAgreement:
    """Agreement with the teachers on a part of the learning images, the same for every method."""
    images = {
        task: split.sample(config.tuning.images_per_task) for task, split in learning_images.items()
    }
    return TeacherAgreement(
        bench.zoo, images, teacher_scores(bench.zoo, images, bench.cache), bench.cache
    )


def _bank(config: Config, bench: Workbench, directory: RunDirectory) -> TaskVectorBank:
    """Task vectors of the seen tasks' experts, where the config wants them."""
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
