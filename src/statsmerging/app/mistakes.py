"""From an exception to one clear line and an exit status."""

from __future__ import annotations

import errno
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from statsmerging.app.config_folder import config_folder
from statsmerging.errors import UserError, first_line
from statsmerging.runs.manifest import this_command

#: Status of an incomplete job or sweep, of a user's mistake, and after Ctrl-C, SIGPIPE (the reader
#: of the output has left) and SIGTERM (128 + signal, as in shells).
INCOMPLETE = 1

MISTAKE = 2

INTERRUPTED = 130

UNREAD = 141

TERMINATED = 143

#: Status → the signal that stopped a job.
STOPPED = {INTERRUPTED: "Ctrl-C", TERMINATED: "SIGTERM"}


def exit_status(error: BaseException | None) -> int:
    """The status of a process that ends with this exception, or without one."""
    if error is None:
        return 0
    # MergingError by its name: importing it may import torch.
    if isinstance(error, UserError) or type(error).__name__ == "MergingError":
        return MISTAKE
    # Lightning turns SIGTERM into a SystemExit without a status, which would read as success,
    # and Ctrl-C into one with status 1, which would read as a failure.
    if type(error).__name__ == "SIGTERMException":
        return TERMINATED
    if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return INTERRUPTED if isinstance(error, SystemExit | KeyboardInterrupt) else INCOMPLETE


#: The disk is full or broken, a quota or `ulimit -f` is used up, or writing is not allowed.
_STORAGE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)

#: The same in the messages of libraries that raise errors of their own.
_STORAGE_WORDS = (
    "No space left on device",
    "Read-only file system",
    "Disk quota exceeded",
    "File too large",
)

#: Messages of torch, CUDA and the loader of libraries if there is not enough memory.
_MEMORY_WORDS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "out of memory",
    "failed to map segment from shared object",
    "Unable to allocate",
)

#: Messages of Hydra for several values of one key, and of OmegaConf for a key without a value.
_SEVERAL_VALUES = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'")

_NO_VALUE = re.compile(r"Missing mandatory value: (\S+)")


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf, with the valid choices where there are any."""
    several = _SEVERAL_VALUES.match(str(error))
    hidden = _mistake_in_a_sweep() if several else None
    if hidden is not None:
        return explain(hidden)
    if several:
        key, _, values = several[1].partition("=")
        return (
            f"{key}={values}: several values are a sweep, {this_command()} -m {key}={values}; "
            f"a list has brackets, {key}=[{values}]"
        )
    for cause in _causes(error):
        if isinstance(cause, OverrideParseException):
            return _unreadable(cause.override)
        if isinstance(cause, MissingConfigException):
            group, _, choice = str(cause.missing_cfg_file).rpartition("/")
            options = cause.options or _choices(group, str(cause))
            return f"{group}={choice}: choose one of {', '.join(sorted(options))}"
        if isinstance(cause, MissingMandatoryValue):
            return _needed(cause)
        if isinstance(cause, ConfigKeyError | ConfigAttributeError):
            known = sorted(str(key) for key in cause.parent_node or () if key != "hydra")
            return f"{cause.full_key}: no such key; choose one of {', '.join(known)}"
    return first_line(error)


def _mistake_in_a_sweep() -> Exception | None:
    """What is wrong with the sweep of an experiment, besides that the command lacks ``-m``.

    Hydra reads from the composed config that an experiment is a sweep. If it cannot compose it, it
    takes the command for a single run, and complains of the several values alone.
    """
    given, _ = get_args_parser().parse_known_args()
    if GlobalHydra.instance().is_initialized():
        return None
    folders = create_config_search_path(str(config_folder()))
    if given.config_dir is not None:
        own = Path(given.config_dir).absolute()
        folders.prepend("command-line", f"file://{own}", SearchPathQuery(provider="schema"))
    try:
        loader = ConfigLoaderImpl(folders)
        loader.load_configuration("config", given.overrides, RunMode.MULTIRUN)
    except Exception as error:
        return error
    return None


def storage_problem(error: BaseException) -> str | None:
    """One line if the error comes from a full disk, a read-only place, or too little memory."""
    for cause in _causes(error):
        memory = isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM
        if memory or any(words in str(cause) for words in _MEMORY_WORDS):
            return "there is not enough memory: allow more, or take less at a time"
        if isinstance(cause, OSError) and cause.errno in _STORAGE:
            return f"{cause.strerror}: {cause.filename or 'the run directory or the cache'}"
        for words in _STORAGE_WORDS:
            if words in str(cause):
                return f"{words}: the run directory or the cache"
    return None


def _unreadable(override: str) -> str:
    """The quotes that a value needs if Hydra's grammar cannot read it, e.g. a path with ``=``."""
    key, is_assignment, value = override.partition("=")
    if not is_assignment:
        return f"{key}: KEY=VALUE is expected; type {key}=VALUE, without spaces around ="
    if value.startswith("~"):
        value = str(Path(value).expanduser())
    # Only backslashes before a quote count double.
    escaped = re.sub(r'\\*(?=["\n])', lambda run: 2 * run[0], f"{value}\n").rstrip("\n")
    escaped = escaped.replace('"', '\\"')
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"{override}: a value with such characters needs quotes: {quoted}"


def _needed(error: MissingMandatoryValue) -> str:
    named = _NO_VALUE.search(str(error))  # the only trace if an interpolation needs the value
    key = error.full_key or (named[1] if named else "")
    comment = _comment(key)
    meaning = f" ({comment[:1].lower()}{comment[1:].removesuffix('.')})" if comment else ""
    return f"{key}: a value is needed{meaning}; type {key}=VALUE"


def _comment(key: str) -> str:
    """The comment above the key in the chosen file of its group."""
    if not HydraConfig.initialized():
        return ""
    group, _, name = key.partition(".")
    runtime = HydraConfig.get().runtime
    files = [
        Path(source.path, group, f"{runtime.choices.get(group)}.yaml")
        for source in runtime.config_sources
        if source.schema == "file"
    ]
    for file in filter(Path.is_file, files):
        lines = file.read_text(encoding="utf-8").splitlines()
        if f"{name}: ???" in lines:
            above = lines[: lines.index(f"{name}: ???")]
            comment = [*takewhile(lambda line: line.startswith("#"), reversed(above))]
            return " ".join(line.lstrip("# ") for line in reversed(comment))
    return ""


def _choices(group: str, message: str) -> list[str]:
    """Choices of a group: for a list, Hydra names only the folders in which it has searched."""
    folders = re.findall(r"path=file://(.+)", message)
    return [file.stem for folder in folders for file in Path(folder, group).glob("*.yaml")]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
