"""The learning step of a run: task vectors and teachers' labels in, coefficients out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.app.config import Config
from statsmerging.app.loggers.run_log import RunLog
from statsmerging.app.setup import Workbench, at_density
from statsmerging.data.images import ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import LabelSettings, LearnedMethodSettings
from statsmerging.learning.trainer import continue_from, create_trainer
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.learner import StatsMergeLearner
from statsmerging.merging.merged_model import MergedModel
from statsmerging.merging.relations import (
    RELATION_COLUMNS,
    place_statistics,
    relation_statistics,
)
from statsmerging.merging.statistics import (
    Feature,
    LayerStatistics,
    Source,
    layer_statistics,
    statistic_columns,
)
from statsmerging.runs.directory import RunDirectory
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of

if TYPE_CHECKING:
    from statsmerging.learning.released_code import ReleasedCodeLearner


def cached_layer_statistics(
    bank: TaskVectorBank,
    bank_hash: str,
    cache: Cache,
    *,
    of: Source,
    rank: int,
    features: Sequence[Feature],
) -> LayerStatistics:
    """The named features of the bank, read from the cache if these weights were seen before.

    Args:
        bank_hash: content hash of the weights the bank was built from, and of their order.
        of: whose mean, variance, magnitude and singular values; the others are of task vectors.
    """

    def cached(key: str, values: Callable[[], Tensor]) -> Tensor:
        return cache.load(
            "statistics",
            f"{key}.safetensors",
            write=lambda path: save_file({"values": values()}, path),
            read=lambda path: load_file(path)["values"],
        )

    weights = cached(
        key_of([bank_hash, of, str(rank)]), lambda: layer_statistics(bank, of=of, rank=rank).values
    )
    statistics = LayerStatistics(weights, statistic_columns(rank), bank.layers, bank.tasks)
    if set(features) & set(RELATION_COLUMNS):
        relations = cached(
            key_of([bank_hash, "relations"]), lambda: relation_statistics(bank).values
        )
        statistics = statistics.beside(
            LayerStatistics(relations, RELATION_COLUMNS, bank.layers, bank.tasks)
        )
    return statistics.beside(place_statistics(bank)).select(features)


@dataclass(frozen=True)
class LearnedMethod:
    """A method whose coefficients are learned: StatsMerging, its controls, AdaMerging."""

    name: str
    settings: LearnedMethodSettings

    def about(self, labels: LabelSettings) -> dict[str, Any]:
        """Title, needs, returns and parameters, for the record; the labels are the run's."""
        settings = self.settings
        told = settings.objective != "entropy" and labels.kind == "ground_truth"
        labelled = told or settings.learner == "released_code"
        return {
            "title": settings.title,
            "needs": "labels" if labelled else "unlabeled images",
            "returns": "state dict",
            "parameters": settings.model_dump(exclude={"title", "tune"}),
        }

    def candidates(self) -> Iterator[LearnedMethod]:
        """The method with every learning rate of its grid."""
        for rate in self.settings.tune or ():
            settings = self.settings.model_copy(update={"learning_rate": rate})
            # A name of its own, so that it continues from checkpoints of its own.
            name = self.name if settings == self.settings else f"{self.name}-{rate:g}"
            yield LearnedMethod(name, settings)


@dataclass(frozen=True)
class Learning:
    """What the learning steps of a run have in common.

    Attributes:
        images: seen task → its unlabeled learning images.
        directory: where checkpoints go.
        run_log: where the metrics of every step go.
    """

    config: Config
    bench: Workbench
    images: Mapping[str, ImageSplit]
    directory: RunDirectory
    run_log: RunLog


@dataclass(frozen=True)
class Learned:
    """What the learning step gives.

    Attributes:
        learner: as it is after the last step.
        coefficients: L × K or K, on the CPU.
        gradient_norm: of the learner in the last step.
    """

    learner: StatsMergeLearner | ReleasedCodeLearner
    coefficients: Tensor
    gradient_norm: float


def learn(
    learning: Learning,
    method: LearnedMethod,
    bank: TaskVectorBank,
    statistics: LayerStatistics,
    targets: Mapping[str, Tensor],
) -> Learned:
    """Train the learner of merging coefficients.

    A run that was killed continues from its last checkpoint and ends at the same coefficients.

    Args:
        method: what is learned, and from what.
        bank: the task vectors at the method's density.
        statistics: of that bank.
        targets: seen task → the scores to be learned on its images, N × C.

    Raises:
        UserError: several processes with a setting that needs one.
    """
    config, bench, settings = learning.config, learning.bench, method.settings
    if config.trainer.devices > 1 and config.labels.min_confidence > 0:
        # Each process would divide by the number of its own confident images.
        raise UserError("labels.min_confidence needs trainer.devices=1")
    if config.trainer.devices > 1 and config.merge.memory_map:
        raise UserError("merge.memory_map needs trainer.devices=1; processes share the memory")
    module = StatsMerging(
        _learner(config, settings, statistics),
        merged_model(learning, method, bank),
        {task: bench.zoo.experts[task].head for task in bank.tasks},
        targets,
        bench.zoo.preprocess,
        config.labels,
        settings.objective,
        config.trainer.model_copy(update={"learning_rate": settings.learning_rate}),
    )
    norm = fit(module, learning, method)
    with torch.no_grad():
        coefficients: Tensor = module.learner().cpu()
    return Learned(module.learner, coefficients, norm)


def merged_model(learning: Learning, method: LearnedMethod, bank: TaskVectorBank) -> MergedModel:
    """The student: the zoo's backbone as a function of coefficients, with the method's anchor."""
    compiled = learning.config.merge.compile
    return MergedModel(learning.bench.zoo.backbone, bank, method.settings.anchor, compiled=compiled)


def fit(
    module: StatsMerging,
    learning: Learning,
    method: LearnedMethod,
    callbacks: Sequence[Callback] = (),
) -> float:
    """Train the module, from its last checkpoint where a killed run has left one.

    Returns:
        The norm of the learner's gradient in the last step.
    """
    config, bench = learning.config, learning.bench
    data = UnlabeledDataModule(
        {task: split.images for task, split in learning.images.items()},
        images_per_task=config.trainer.images_per_task,
        steps_per_epoch=config.trainer.steps_per_epoch,
        seed=config.trainer.seed,
    )
    # Named after weights and images, so that a run never continues from what others gave.
    sources = [*bench.weight_hashes.values(), *bench.images.fingerprints().values()]
    checkpoint = learning.directory.checkpoints / f"{method.name}-{key_of(sources)}.ckpt"
    trainer = create_trainer(
        accelerator=config.accelerator,
        epochs=config.trainer.steps // config.trainer.steps_per_epoch,
        description=f"learning coefficients of {method.settings.title}",
        callbacks=callbacks,
        loggers=learning.run_log.curves(method.name),
        checkpoint=checkpoint,
        devices=config.trainer.devices,
    )
    trainer.fit(module, data, ckpt_path=continue_from(checkpoint), weights_only=True)
    # Lightning leaves everything on the CPU, and further methods merge the same bank.
    module.student.to(bench.zoo.device)
    # The step may have been another process's, or one of the killed run's.
    norm = trainer.callback_metrics.get("learner_gradient_norm", module.gradient_norm)
    return float(norm)


def run_statistics(
    config: Config, bench: Workbench, bank: TaskVectorBank, density: float | None
) -> LayerStatistics:
    """The statistics that the config asks for.

    Args:
        bank: whole task vectors; they are trimmed here, as the name in the cache says they are.
        density: at which a method sees them, see ``at_density``.
    """
    hashes = [
        bench.zoo.hashes[name] for name in ("pretrained", *(f"{t}/backbone" for t in bank.tasks))
    ]
    return cached_layer_statistics(
        at_density(bank, density),
        key_of([*hashes, config.merge.precision, f"density {density}"]),
        bench.cache,
        of=config.statistics.of,
        rank=config.statistics.rank,
        features=config.statistics.features,
    )


def _learner(
    config: Config, settings: LearnedMethodSettings, statistics: LayerStatistics
) -> StatsMergeLearner:
    assert settings.learner != "released_code"  # that one has a learning step of its own
    return StatsMergeLearner(
        statistics,
        settings.granularity,
        kind=settings.learner,
        standardise=config.statistics.standardise,
        link=settings.link,
        hidden=config.learner.hidden,
        scale=settings.scale,
        anchor=settings.anchor,
        start=settings.start,
        generator=torch.Generator().manual_seed(config.seed),
    )
