"""Layer statistics of a zoo's bank, computed once and cached by the content of the weights."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from statsmerging.merging.statistics import (
    LayerStatistics,
    Source,
    layer_statistics,
    statistic_columns,
)
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.cache import Cache
from statsmerging.records.hashing import key_of


def cached_layer_statistics(
    bank: TaskVectorBank, bank_hash: str, cache: Cache, *, of: Source, rank: int
) -> LayerStatistics:
    """``layer_statistics`` of the bank, read from the cache if these weights were seen before.

    Args:
        bank_hash: content hash of the weights the bank was built from, and of their order.
    """

    def write(path: Path) -> None:
        save_file({"values": layer_statistics(bank, of=of, rank=rank).values}, path)

    name = f"{key_of([bank_hash, of, str(rank)])}.safetensors"
    values = load_file(cache.file("statistics", name, write))["values"]
    return LayerStatistics(values, statistic_columns(rank), bank.layers, bank.tasks)
