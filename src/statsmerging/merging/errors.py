"""The error of the heart: its inputs cannot be merged."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args


class MergingError(ValueError):
    """The given weights cannot be merged; the message is one line that names the tensors."""


def check_choice(argument: str, value: object, choices: Any) -> None:
    """Raise ``MergingError`` unless the value is one of those that a ``Literal`` type lists."""
    valid = get_args(choices)
    if value not in valid:
        raise MergingError(f"{argument}={value}: {choose_one(value, valid)}")


def choose_one(value: object, valid: Iterable[str], choose: str = "choose one of") -> str:
    """The end of a message about a value that is none of the valid ones; it names the closest.

    Args:
        choose: what is to be done with the valid ones.
    """
    names = list(valid)
    close = get_close_matches(str(value).lower(), names, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{choose} {', '.join(names)}{meant}"
