"""The error of the heart: its inputs cannot be merged."""

from __future__ import annotations

from typing import Any, get_args


class MergingError(ValueError):
    """The given weights cannot be merged; the message is one line that names the tensors."""


def check_choice(argument: str, value: object, choices: Any) -> None:
    """Raise ``MergingError`` unless the value is one of those that a ``Literal`` type lists."""
    valid = get_args(choices)
    if value not in valid:
        raise MergingError(f"{argument}={value}: choose one of {', '.join(valid)}")
