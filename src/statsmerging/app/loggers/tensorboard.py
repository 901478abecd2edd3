"""``logger=tensorboard``: event files in the run directory."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger
from torch.utils.tensorboard import SummaryWriter

from statsmerging.app.loggers.curves import MethodCurves
from statsmerging.app.loggers.numbers import flat_numbers
from statsmerging.app.loggers.settings import TensorboardSettings
from statsmerging.app.loggers.store import LoggedRun, Store
from statsmerging.report.figures.pictures import coefficient_heatmaps
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import markdown
from statsmerging.runs.results import RunResults


class TensorboardStore(Store):
    """``tensorboard/``; a run that was killed adds another file to it."""

    def __init__(self, run: LoggedRun) -> None:
        self.run = run

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens a file of its own."""
        return {"run": self.run}

    @cached_property
    def writer(self) -> SummaryWriter:
        return SummaryWriter(str(self.run.directory.path / "tensorboard"))

    def curves(self, method: str) -> Logger:
        return MethodCurves(method, self._write)

    def results(self, results: RunResults) -> None:
        self._write(flat_numbers(results), 0)
        self.writer.add_text("results", markdown(accuracy_content([results])))
        for method, picture in coefficient_heatmaps(self.run.directory.coefficients).items():
            pixels = np.asarray(picture)
            self.writer.add_image(f"coefficients/{method}", pixels, dataformats="HWC")

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def _write(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def open_store(settings: TensorboardSettings, run: LoggedRun) -> Store:
    return TensorboardStore(run)
