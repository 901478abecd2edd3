"""A process that is killed while it trains, without the end of this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lightning import LightningModule


class KilledError(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@contextmanager
def killed_in_step(module: type[LightningModule], number: int) -> Iterator[list[int]]:
    """Within the block one training step of these modules, counted from 1, is a kill.

    Yields:
        Numbers of the steps that have begun, the kill and those of a continued training too.
    """
    step = module.training_step
    begun: list[int] = []

    def training_step(self: LightningModule, batch: Any) -> Any:
        begun.append(len(begun) + 1)
        if begun[-1] == number:
            raise KilledError
        return step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "training_step", training_step)
        yield begun
