"""``manifest.json``: everything that is needed to make a run again and to compare it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

import statsmerging
from statsmerging.store.hashing import file_sha256, json_sha256
from statsmerging.store.secrets import redacted

#: File → its size in bytes and its time of modification in nanoseconds.
Stamps = dict[str, list[int]]


def file_stamps(paths: Iterable[Path]) -> Stamps:
    """Size and time of modification of the files, and of all files below the folders."""
    stamps: Stamps = {}
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                stamps[str(file)] = _stamp(file)
    return stamps


def changed_files(stamps: Mapping[str, list[int]]) -> list[str]:
    """Files that are missing, or whose size or time of modification changed."""
    return [
        name
        for name, stamp in stamps.items()
        if not Path(name).is_file() or _stamp(Path(name)) != stamp
    ]


def file_records(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Name of each file → its path, its size in bytes and its sha256."""
    return {
        name: {"path": str(path), "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name, path in files.items()
    }


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


#: Longest wait for git, in seconds; a repository on a dead network mount must not hang a run.
GIT_TIMEOUT = 10


def manifest(
    config: dict[str, Any],
    *,
    run_hash: str,
    weights: dict[str, str],
    files: dict[str, dict[str, Any]],
    plugins: dict[str, dict[str, str]],
    data: dict[str, str],
    preprocessing: dict[str, dict[str, Any]],
    inputs: Stamps,
    stamps: list[str],
) -> dict[str, Any]:
    """The record of one run, without credentials.

    Args:
        config: the resolved config.
        run_hash: hash of the part of the config that determines the results.
        weights: name of each state dict → sha256 of its tensors.
        files: the files from which these weights were read, with size and sha256; none if they
            were made here.
        plugins: the user's Python files that were imported, with the sha256 of their code.
        data: ``task/split`` → sha256 of its images and labels.
        preprocessing: of the ``backbone``, and of the ``task/teacher`` of each expert of another
            architecture, with the values that the config left to the checkpoint.
        inputs: size and time of modification of the files that the config names.
        stamps: departures from the label-free protocol; empty for an honest run.
    """
    return {
        "run_hash": run_hash,
        "command": redacted(sys.argv),
        "config": redacted(config),
        "seeds": {"run": config["seed"], "zoo": config["zoo"].get("seed")},
        "stamps": stamps,
        "code": code_version(),
        "plugins": plugins,
        "packages": packages(),
        "hardware": hardware(),
        "weights": weights,
        "files": files,
        "data": data,
        "preprocessing": preprocessing,
        "inputs": inputs,
    }


def this_command() -> str:
    """How one begins a command here: ``python run.py`` or, installed, ``statsmerging``."""
    return "python run.py" if Path(sys.argv[0]).name == "run.py" else "statsmerging"


def typed_command(recorded: Sequence[str]) -> str:
    """The recorded command as one types it, for a shell."""
    first, *others = recorded
    program = ["python", first] if first.endswith(".py") else [Path(first).name]
    return shlex.join([*program, *others])


def code_version() -> dict[str, Any]:
    """Package version and the code behind it.

    In a git checkout that is the ``commit`` and whether files differ from it (``modified``). An
    installed package has no commit, ``None``, unless pip took it from a git repository; its
    ``sha256`` is that of its modules and configs.
    """
    package = Path(statsmerging.__file__).parent
    version = {"statsmerging": statsmerging.__version__}
    # Of a file of ours: an environment may lie inside a repository of something else.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py"):
        commit = _git(package, "rev-parse", "HEAD")
        changes = _git(package, "status", "--porcelain", "--untracked-files=no")
        return {**version, "commit": commit, "modified": bool(changes)}
    return {
        **version,
        "commit": _installed_commit(package),
        "modified": False,
        "sha256": _installed_sha256(package),
    }


def _installed_commit(package: Path) -> str | None:
    """The commit that ``pip install git+https://…`` has taken, from pip's record of it."""
    try:
        installed = distribution("statsmerging")
        record = installed.read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    if record is None or Path(str(installed.locate_file("statsmerging"))) != package:
        return None
    commit = json.loads(record).get("vcs_info", {}).get("commit_id")
    return None if commit is None else str(commit)


@cache
def _installed_sha256(package: Path) -> str:
    files = sorted(file for file in package.rglob("*") if file.suffix in (".py", ".yaml"))
    return json_sha256({file.relative_to(package).as_posix(): file_sha256(file) for file in files})


def packages() -> dict[str, str]:
    """Name → version of every installed distribution."""
    found = {item.metadata["Name"]: item.version for item in distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def hardware() -> dict[str, Any]:
    """The machine: equal numbers are promised on machines of the same kind."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
