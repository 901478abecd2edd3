"""``manifest.json``: everything that is needed to make a run again and to compare it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from statsmerging import __version__
from statsmerging.store.hashing import file_sha256
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


def code_version() -> dict[str, Any]:
    """Package version and, in a git checkout, the commit and whether files differ from it."""
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"statsmerging": __version__, "commit": commit, "modified": bool(changes)}


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
