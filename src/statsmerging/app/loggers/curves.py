"""From Lightning's metrics to ``METHOD/metric``, for stores that hold all methods of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

Send = Callable[[dict[str, float], int], None]


class MethodCurves(Logger):
    """Gives the metrics of a method names of their own and sends them on.

    Where several processes learn, the first of them has a copy of it and of the store behind it.

    Args:
        method: stands before the name of each metric, e.g. ``stats_merging/loss``.
        send: takes the metrics and the learning step, counted from 0.
    """

    def __init__(self, method: str, send: Send) -> None:
        super().__init__()
        self.method = method
        self.send = send

    @property
    def name(self) -> str:
        return self.method

    @property
    def version(self) -> int:
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        named = {f"{self.method}/{metric}": value for metric, value in metrics.items()}
        self.send(named, step or 0)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The whole config is logged with the run."""
