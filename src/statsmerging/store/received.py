"""Received files are data: they are read within bounds, and without following links.

A run directory, a report, a cache or a data folder may come from anybody (``docs/security.md``).
Every reader of such a folder opens its files through this module.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from statsmerging.errors import UserError, first_line, printable, shown

#: Bytes of the largest text file (JSON, YAML) that is read whole.
LARGEST_TEXT = 1 << 26

#: Levels of lists and mappings within one another; records of ours have fewer than ten.
DEEPEST = 50

Record = TypeVar("Record", bound=BaseModel)

#: What names a method, a task or a file of ours: no separator, no leading dot, nothing invisible.
_PLAIN = re.compile(r"[^\W_][\w.+-]*")


class ReceivedError(UserError):
    """A received file is missing, damaged or of another kind; the message names it."""


def received_file(folder: Path, name: str) -> Path:
    """The path of a regular file inside a received folder.

    Args:
        folder: the folder, as the user named it; it may be a link itself.
        name: the file's path within it.

    Raises:
        ReceivedError: no such file, no regular file (a pipe would block its reader), a name that
            leads out of the folder, or a link on the way.
    """
    path = folder / name
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts:
        raise ReceivedError(f"{shown(name)} leads out of {printable(str(folder))}")
    steps = [folder.joinpath(*parts[: end + 1]) for end in range(len(parts))]
    for step in steps:
        if step.is_symlink():
            raise ReceivedError(f"{printable(str(step))} is a link; links are not followed")
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise ReceivedError(f"{printable(str(path))}: {_reason(error)}") from error
    if not regular:
        raise ReceivedError(f"{printable(str(path))} is no regular file")
    return path


def received_text(folder: Path, name: str) -> str:
    """The text of a file inside a received folder; it must be UTF-8 of at most ``LARGEST_TEXT``.

    Raises:
        ReceivedError: names the file and the reason.
    """
    path = received_file(folder, name)
    size = path.stat().st_size
    if size > LARGEST_TEXT:
        raise ReceivedError(f"{printable(str(path))} is too large to be a record: {size} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReceivedError(f"{printable(str(path))} cannot be read: {_reason(error)}") from error


def received_json(folder: Path, name: str) -> Any:
    """The value in a JSON file inside a received folder.

    Raises:
        ReceivedError: names the file and the reason; it may be cut short or nested too deeply.
    """
    text = received_text(folder, name)
    where = printable(str(folder / name))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReceivedError(f"{where} is no whole JSON: {_reason(error)}") from error
    _refuse_depth(value, folder / name)
    _refuse_halves(value, folder / name)
    return value


def received_yaml(folder: Path, name: str) -> Any:
    """The value in a YAML file inside a received folder, as plain Python data.

    Aliases are refused: a few of them can stand for gigabytes. So are interpolations
    (``${oc.env:…}`` reads the environment): a resolved config has none.

    Raises:
        ReceivedError: names the file and the reason.
    """
    text = received_text(folder, name)
    where = printable(str(folder / name))
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ReceivedError(f"{where} holds aliases, which are not read")
        # OmegaConf wrote the file, and parses numbers in its own way.
        value = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ReceivedError(f"{where} is no plain YAML: {_reason(error)}") from error
    _refuse_depth(value, folder / name)
    _refuse_halves(value, folder / name)
    if any("${" in text for text in texts(value)):
        raise ReceivedError(f"{where} is no resolved config: it holds an interpolation, ${{…}}")
    return value


def check_record(kind: type[Record], value: Any, path: Path) -> Record:
    """The value as a checked object.

    Raises:
        ReceivedError: names the file and its first wrong entry.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reason = f"{key}: {first['msg']}" if key else first["msg"]
        raise ReceivedError(printable(f"{path} is no record: {reason}")) from error


def is_plain_name(name: str) -> bool:
    """Whether a name may become a part of a file's name: letters, digits and ``_ . + -``."""
    return _PLAIN.fullmatch(name) is not None


def texts(value: Any) -> Iterator[str]:
    """All texts in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(key)
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def _refuse_halves(value: Any, path: Path) -> None:
    """Refuse lone surrogates, which JSON can spell and no file can hold."""
    try:
        for text in texts(value):
            text.encode()
    except UnicodeEncodeError as error:
        raise ReceivedError(f"{printable(str(path))} holds text that is no Unicode") from error


def _refuse_depth(value: Any, path: Path) -> None:
    """Refuse deep nesting, on which recursive readers would fail."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _entries(outer)]
    if level:
        raise ReceivedError(f"{printable(str(path))} is nested too deeply")


def _entries(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return printable(getattr(error, "strerror", None) or first_line(error))
