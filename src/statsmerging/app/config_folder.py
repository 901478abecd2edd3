"""Where the configs lie, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import statsmerging


def config_folder() -> Path:
    """Folder of the configs: inside an installed package, at the top of a checkout."""
    package = Path(statsmerging.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
