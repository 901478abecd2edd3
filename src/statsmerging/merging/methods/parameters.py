"""Parameters of a merging method: published default, range, grid for tuning."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

T = TypeVar("T")

_LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt,
    "at least": operator.ge,
    "below": operator.lt,
    "at most": operator.le,
}


@dataclass(frozen=True)
class Grid:
    """The values of one parameter that tuning tries."""

    parameter: str
    values: tuple[float, ...]


def parameter(
    default: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> T:
    """A method's parameter with its published default and the range it must lie in."""
    limits = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    stated = {word: limit for word, limit in limits.items() if limit is not None}
    return field(default=default, metadata=stated)


def complaint(value: object, kind: object, limits: Mapping[str, float]) -> str | None:
    """What a parameter's value must be and is not; None if all is well."""
    choices = get_args(kind)
    if choices:
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        return "a whole number"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "a finite number"
    if all(_LIMITS[word](value, limit) for word, limit in limits.items()):
        return None
    return " and ".join(f"{word} {limit:g}" for word, limit in limits.items())
