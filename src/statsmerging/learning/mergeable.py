"""What coefficients are learned for, and the statistics they are learned from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.learning.chosen_methods import LearnedMethod
from statsmerging.learning.problem import MergingProblem, at_density
from statsmerging.learning.settings import (
    DirectionsSettings,
    MergingSettings,
    SpectralSettings,
    StatisticsSettings,
)
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.decomposition import Decomposition
from statsmerging.merging.directions import DirectionStatistics, direction_statistics
from statsmerging.merging.merged_model import Bank
from statsmerging.merging.relations import (
    RELATION_COLUMNS,
    place_statistics,
    relation_statistics,
)
from statsmerging.merging.spectral import SpectralBank
from statsmerging.merging.statistics import LayerStatistics, layer_statistics, statistic_columns
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of


@dataclass(frozen=True)
class Mergeable:
    """What coefficients are learned for, and the statistics they are learned from."""

    bank: Bank
    statistics: LayerStatistics | DirectionStatistics


def mergeable(
    settings: MergingSettings, problem: MergingProblem, bank: TaskVectorBank, method: LearnedMethod
) -> Mergeable:
    """A bank at the granularity of the method, with statistics.

    Args:
        bank: whole task vectors; they are trimmed here to the density of the method.
    """
    density = method.settings.density
    # Before the bank: both trim, and three banks would be in memory at once.
    statistics = run_statistics(settings, problem, bank, density)
    return at_granularity(settings, problem, method, at_density(bank, density), statistics)


def at_granularity(
    settings: MergingSettings,
    problem: MergingProblem,
    method: LearnedMethod,
    bank: TaskVectorBank,
    statistics: LayerStatistics,
) -> Mergeable:
    """A bank and the statistics of its layers, or its singular directions and theirs.

    Args:
        bank: task vectors of the problem's experts or of some of them, at the method's density.
    """
    if method.settings.granularity != "singular_wise":
        return Mergeable(bank, statistics)
    chosen = method.settings.spectral or settings.spectral
    decomposition = decomposition_of(chosen, getattr(torch, settings.merge.precision))
    hashes = task_vector_hashes(settings, problem, bank, method.settings.density)
    directions = problem.directions.of(bank, decomposition, hashes)
    return of_directions(bank, directions, statistics, settings.spectral)


def run_statistics(
    settings: MergingSettings,
    problem: MergingProblem,
    bank: TaskVectorBank,
    density: float | None,
) -> LayerStatistics:
    """The statistics that the config asks for.

    Args:
        bank: whole task vectors; they are trimmed here, as the key in the cache promises.
        density: of the task vectors as a method sees them, see ``at_density``.
    """
    return layer_features(
        at_density(bank, density),
        settings.statistics,
        cached(problem.cache, key_of(task_vector_hashes(settings, problem, bank, density))),
    )


def task_vector_hashes(
    settings: MergingSettings,
    problem: MergingProblem,
    bank: TaskVectorBank,
    density: float | None,
) -> list[str]:
    """What the task vectors of a method depend on: weights, precision and density."""
    names = ["pretrained", *(f"{task}/backbone" for task in bank.tasks)]
    hashes = [problem.zoo.hashes[name] for name in names]
    return [*hashes, settings.merge.precision, f"density {density}"]


#: Values of statistics, by what they are: computed, or read from where they were kept.
Known = Callable[[list[str], Callable[[], Tensor]], Tensor]


def cached(cache: Cache, bank_hash: str) -> Known:
    """Statistics are read from the cache if these weights were seen before.

    Args:
        bank_hash: content hash of the weights the bank was built from, and of their order.
    """

    def known(what: list[str], values: Callable[[], Tensor]) -> Tensor:
        return cache.load(
            "statistics",
            f"{key_of([bank_hash, *what])}.safetensors",
            write=lambda path: save_file({"values": values()}, path),
            read=lambda path: load_file(path)["values"],
        )

    return known


def computed(what: list[str], values: Callable[[], Tensor]) -> Tensor:
    """Statistics are computed, and not kept."""
    del what
    return values()


def layer_features(
    bank: TaskVectorBank, settings: StatisticsSettings, known: Known = computed
) -> LayerStatistics:
    """The named features of the layers of a bank.

    Args:
        settings: ``of``: whose mean, variance, magnitude and singular values; the others are of
            task vectors.
    """
    of, rank = settings.of, settings.rank
    weights = known([of, str(rank)], lambda: layer_statistics(bank, of=of, rank=rank).values)
    statistics = LayerStatistics(
        weights, statistic_columns(rank), bank.layers, bank.tasks, bank.vector_layers
    )
    if set(settings.features) & set(RELATION_COLUMNS):
        relations = known(["relations"], lambda: relation_statistics(bank).values)
        statistics = statistics.beside(
            LayerStatistics(relations, RELATION_COLUMNS, bank.layers, bank.tasks)
        )
    return statistics.beside(place_statistics(bank.layers, bank.tasks)).select(settings.features)


def decomposition_of(settings: DirectionsSettings, dtype: torch.dtype) -> Decomposition:
    """How task vectors are taken apart into singular directions.

    Args:
        dtype: precision of the directions.
    """
    return Decomposition(
        rank=settings.rank,
        budget=settings.budget,
        orthonormal=settings.orthonormal,
        split_attention=settings.split_attention,
        dtype=dtype,
    )


def of_directions(
    bank: TaskVectorBank,
    directions: SpectralBank,
    statistics: LayerStatistics,
    settings: SpectralSettings,
) -> Mergeable:
    """The singular directions of a bank, and their named features.

    Args:
        statistics: of the layers of the bank.
    """
    found = direction_statistics(directions).beside(statistics)
    features = settings.seen_features
    if "relations" in features:
        found = found.beside(relation_statistics(bank))
    return Mergeable(directions, found.select(features))
