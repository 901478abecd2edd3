"""``logger=tensorboard``: event files in the run directory."""

from __future__ import annotations

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from statsmerging.app.loggers.run_log import LoggedRun, RunLogger, flat_numbers
from statsmerging.app.loggers.settings import TensorboardSettings
from statsmerging.report.figures.pictures import coefficient_pictures
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import markdown
from statsmerging.runs.results import RunResults

FOLDER = "tensorboard"


class MethodCurves(TensorBoardLogger):
    """Event file of one method's learning curves, with the tags ``METHOD/metric``."""

    LOGGER_JOIN_CHAR = "/"

    def save(self) -> None:
        """Nothing to do: Lightning would write an empty ``hparams.yaml``."""


class TensorboardRunLogger(RunLogger):
    """``tensorboard/``: one event file for each method, one for the results.

    A killed job that restarts adds files.
    """

    def curves(self, method: str) -> Logger:
        # Without a delay between flushes a killed job keeps its curve.
        place = self.run.directory.path
        return MethodCurves(place, name="", version=FOLDER, prefix=method, flush_secs=0)

    def results(self, results: RunResults) -> None:
        with SummaryWriter(str(self.run.directory.path / FOLDER)) as writer:
            for name, value in flat_numbers(results).items():
                writer.add_scalar(name, value, 0)
            writer.add_text("results", markdown(accuracy_content([results])))
            for name, picture in coefficient_pictures(self.run.directory.coefficients).items():
                writer.add_image(name, np.asarray(picture), dataformats="HWC")


def open_logger(settings: TensorboardSettings, run: LoggedRun) -> RunLogger:
    """Files are opened by the process that writes them."""
    return TensorboardRunLogger(run)
