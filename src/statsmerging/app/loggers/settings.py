"""The config's section ``logger``: one entry for each chosen logger.

Imported by the schema: no Lightning, no W&B.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveFloat

from statsmerging.settings import Settings


class CsvSettings(Settings):
    """Files in the run directory; nothing to set."""


class WandbSettings(Settings):
    """Weights & Biases."""

    project: str
    entity: str | None
    mode: Literal["offline", "online", "disabled"]
    upload_model: bool
    init_timeout: PositiveFloat


class TensorboardSettings(Settings):
    """Event files in the run directory; nothing to set."""


class MlflowSettings(Settings):
    """One store for all runs."""

    tracking_uri: str
    artifacts: str | None


class LoggerSettings(Settings):
    """The chosen loggers; none is a choice too."""

    csv: CsvSettings | None = None
    wandb: WandbSettings | None = None
    tensorboard: TensorboardSettings | None = None
    mlflow: MlflowSettings | None = None

    def chosen(self) -> Iterator[tuple[str, Settings]]:
        """Name and settings of each chosen logger."""
        for name in type(self).model_fields:
            settings = getattr(self, name)
            if settings is not None:
                yield name, settings
