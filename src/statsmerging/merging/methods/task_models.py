"""One model per task, of which only the one in use exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TaskModels(Mapping[str, dict[str, Tensor]]):
    """Task → full state dict, built anew each time it is asked for.

    Args:
        tasks: in the order of the bank.
        build: task → its state dict.
    """

    tasks: tuple[str, ...]
    build: Callable[[str], dict[str, Tensor]]

    def __getitem__(self, task: str) -> dict[str, Tensor]:
        if task not in self.tasks:
            raise KeyError(task)
        return self.build(task)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)
