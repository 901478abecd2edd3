"""The package as a user has it: built, and installed into an environment without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: Everything of the repository that a build needs.
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "conf")

#: setuptools knows `license = "MIT"` since then.
OLDEST_SETUPTOOLS = 77


@dataclass(frozen=True)
class Environment:
    """A virtual environment that shares the packages of this one, but not the checkout."""

    folder: Path

    def run(self, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, as its user would."""
        return subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=users_environment(),
            check=False,
        )

    def install(self, *what: str) -> None:
        """Install a wheel, a folder or an address of git, without a network."""
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        done = self.run("python", "-m", "pip", "install", *options, *what, cwd=self.folder)
        assert done.returncode == 0, done.stderr


def users_environment() -> dict[str, str]:
    """Environment variables without those that show this test's checkout."""
    hidden = ("PYTHONPATH", "HYDRA_FULL_ERROR", "STATSMERGING_CACHE")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def new_environment(folder: Path) -> Environment:
    """An environment with pip, in which the packages of this one can be imported."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (place,) = folder.glob("lib/python*/site-packages")
    # Python 3.11 brings an old one, which would hide the shared one.
    for old in place.glob("setuptools*"):
        shutil.rmtree(old)
    # A line of a .pth file is no more than a folder: an editable install in it is not followed.
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (place / "shared.pth").write_text("".join(f"{path}\n" for path in sorted(shared)))
    return Environment(folder)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a build needs, in a folder of their own: building leaves things behind."""
    try:
        found = int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        pytest.skip("nothing can be built here: setuptools is not installed")
    if found < OLDEST_SETUPTOOLS:
        pytest.skip(f"nothing can be built here: setuptools {found} < {OLDEST_SETUPTOOLS}")
    return copied(ROOT, tmp_path_factory.mktemp("sources"), SOURCES)


def copied(source: Path, target: Path, names: tuple[str, ...]) -> Path:
    """Copy files and folders of one folder into another one, without what a build leaves."""
    left = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=left)
        else:
            shutil.copy(source / name, target / name)
    return target


@pytest.fixture(scope="session")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the source archive of the sources, as it would be published."""
    folder = tmp_path_factory.mktemp("built")
    archive = _built("sdist", sources, folder)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return _built("wheel", folder / archive.name.removesuffix(".tar.gz"), folder)


def _built(kind: str, sources: Path, target: Path) -> Path:
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=sources,
        env=users_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel; it lies in a git repository that has nothing to do with it."""
    project = tmp_path_factory.mktemp("project")
    commit(project, "somebody else's work")
    environment = new_environment(project / "environment")
    environment.install(str(wheel))
    return environment


def commit(folder: Path, message: str) -> str:
    """Commit all that is in a folder, which becomes a git repository; the commit's name."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    return git("rev-parse", "HEAD")
