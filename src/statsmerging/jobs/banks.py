"""The task vectors of a run's seen tasks, where the config and a method want them."""

from __future__ import annotations

import torch

from statsmerging.jobs.schema import Config
from statsmerging.jobs.workbench import Workbench
from statsmerging.merging.methods.ties import trimmed_bank
from statsmerging.merging.task_vectors import TaskVectorBank
from statsmerging.records.run_directory import RunDirectory


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
