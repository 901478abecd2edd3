"""Layer statistics of a zoo's bank, computed once and cached by the content of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from safetensors.torch import load_file, save_file
from torch import Tensor

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
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.cache import Cache
from statsmerging.records.hashing import key_of


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
