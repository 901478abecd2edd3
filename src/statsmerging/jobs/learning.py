"""The learning step of a run: bank and teachers' scores in, coefficients out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from torch import Tensor

from statsmerging.data.image_cache import ImageSplit
from statsmerging.data.unlabeled import UnlabeledDataModule
from statsmerging.distillation.module import StatsMerging
from statsmerging.distillation.settings import LearnedMethodSettings
from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench
from statsmerging.merging.functional import MergedModel
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.errors import UserError
from statsmerging.records.hashing import key_of
from statsmerging.records.run_directory import RunDirectory
from statsmerging.zoo.statistics import cached_layer_statistics
from statsmerging.zoo.trainer import create_trainer

log = logging.getLogger(__name__)


def learn_coefficients(
    config: Config,
    name: str,
    method: LearnedMethodSettings,
    bench: Workbench,
    bank: TaskVectorBank,
    images: Mapping[str, ImageSplit],
    teachers: Mapping[str, Tensor],
    directory: RunDirectory,
    loggers: Sequence[Logger],
) -> Tensor:
    """Train the learner and return its coefficients, L × K or K.

    A run that was killed continues from its last checkpoint and ends at the same coefficients.

    Args:
        name: of the method, as it stands in the names of its files.
        method: what is learned, and from what.
        images: seen task → its unlabeled learning images.
        teachers: seen task → its teacher's scores on them, N × C.
        loggers: where the metrics of every step go.
    """
    if config.trainer.devices > 1 and config.labels.min_confidence > 0:
        # Each process would divide by the number of its own confident images.
        raise UserError("labels.min_confidence needs trainer.devices=1")
    module = StatsMerging(
        _learner(config, method, bench, bank),
        MergedModel(bench.zoo.backbone, bank, config.merge.anchor),
        {task: bench.zoo.experts[task].head for task in bank.tasks},
        teachers,
        bench.zoo.preprocess,
        config.labels,
        method.objective,
        config.trainer.model_copy(update={"learning_rate": method.learning_rate}),
    )
    data = UnlabeledDataModule(
        {task: split.images for task, split in images.items()},
        images_per_task=config.trainer.images_per_task,
        steps_per_epoch=config.trainer.steps_per_epoch,
        seed=config.trainer.seed,
    )
    # Named after weights and images, so that a run never continues from what others gave.
    sources = [*bench.weight_hashes.values(), *bench.images.fingerprints().values()]
    file = f"{name}-{key_of(sources)}"
    checkpoint = ModelCheckpoint(directory.checkpoints, filename=file, enable_version_counter=False)
    trainer = create_trainer(
        accelerator=config.accelerator,
        epochs=config.trainer.steps // config.trainer.steps_per_epoch,
        description=f"learning coefficients of {method.title}",
        callbacks=[checkpoint],
        loggers=loggers,
        devices=config.trainer.devices,
    )
    last = directory.checkpoints / f"{file}.ckpt"
    if last.exists():
        log.info("continuing from %s", last)
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    with torch.no_grad():
        coefficients: Tensor = module.learner().cpu()
    return coefficients


def _learner(
    config: Config, method: LearnedMethodSettings, bench: Workbench, bank: TaskVectorBank
) -> StatsMergeLearner:
    hashes = [
        bench.zoo.hashes[name] for name in ("pretrained", *(f"{t}/backbone" for t in bank.tasks))
    ]
    statistics = cached_layer_statistics(
        bank,
        key_of([*hashes, config.merge.precision, f"density {method.density}"]),
        bench.cache,
        of=config.statistics.of,
        rank=config.statistics.rank,
    )
    return StatsMergeLearner(
        statistics.select(config.statistics.features),
        method.granularity,
        kind=method.learner,
        standardise=config.statistics.standardise,
        link=config.coefficients,
        hidden=config.learner.hidden,
        scale=config.learner.scale,
        generator=torch.Generator().manual_seed(config.seed),
    )
