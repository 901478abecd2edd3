"""One clear line for what went wrong."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

from hydra.errors import MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from statsmerging.records.errors import first_line

#: The disk is full, its quota used up, or nothing may be written.
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)

#: The same as libraries say it that raise errors of their own.
_STORAGE_WORDS = ("No space left on device", "Read-only file system", "Disk quota exceeded")


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf, with the valid choices where there are any."""
    for cause in _causes(error):
        if isinstance(cause, MissingConfigException):
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            options = cause.options or _choices(group, str(cause))
            return f"{group}={choice}: choose one of {', '.join(sorted(options))}"
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key}: a value is needed"
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            known = sorted(str(key) for key in cause.parent_node or () if key != "hydra")
            return f"{cause.full_key}: no such key; choose one of {', '.join(known)}"
    return first_line(error)


def storage_problem(error: BaseException) -> str | None:
    """One line if the error comes from a full disk or a place that cannot be written to."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _STORAGE:
            return f"{cause.strerror}: {cause.filename or 'the run directory or the cache'}"
        for words in _STORAGE_WORDS:
            if words in str(cause):
                return f"{words}: the run directory or the cache"
    return None


def _choices(group: str, message: str) -> list[str]:
    """Of a choice in a list, Hydra tells only the folders in which it has searched."""
    folders = re.findall(r"path=file://(.+)", message)
    return [file.stem for folder in folders for file in Path(folder, group).glob("*.yaml")]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
