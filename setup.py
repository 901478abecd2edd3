"""Puts ``conf/`` into what is installed; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """An installed package holds the configs as ``statsmerging/conf/``.

    An editable install reads those of the checkout, as ``run.py`` does.
    """

    def run(self) -> None:
        """Copy the modules and the configs, and leave none of an earlier build."""
        if self.editable_mode:
            super().run()
            return
        package = Path(self.build_lib, "statsmerging")
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        shutil.copytree("conf", package / "conf")


setup(cmdclass={"build_py": WithConfigs})
