"""The config of a command without any choice of its own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from statsmerging.app.config import plain_values
from statsmerging.app.config_folder import config_folder


def default_config() -> dict[str, Any]:
    """The composed defaults as plain values; a command's own folders of configs count."""
    begun = GlobalHydra.instance().is_initialized()
    folder = str(config_folder())
    with nullcontext() if begun else initialize_config_dir(folder, version_base="1.3"):
        return plain_values(compose("config"), complete=False)
