"""The base of every section of the config, and one clear line for a value that is not valid."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
)
from pydantic_core import ErrorDetails

from statsmerging.errors import printable


class Settings(BaseModel):
    """Values are checked when the object is made; a wrong one raises pydantic's error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


#: pydantic's location of an error in a key, not in its value.
_OF_KEY = "[key]"


def describe(error: ValidationError, prefix: str = "") -> str:
    """One line that names every wrong key, its value and what it should be.

    A value of the whole run, e.g. ``seed``, is said once, not again where it is only passed on.
    """
    items = error.errors()
    whole = {(item["loc"][-1], item["msg"]) for item in items if len(item["loc"]) == 1}
    return printable(
        "; ".join(
            f"{prefix}{_key(item['loc'])}{_value(item)}: {_reason(item['msg'])}"
            for item in items
            if len(item["loc"]) == 1 or (item["loc"][-1], item["msg"]) not in whole
        )
    )


def _key(location: tuple[int | str, ...]) -> str:
    """The dotted key; pydantic puts the choice of the groups zoo and heads in its middle."""
    parts = [str(part) for part in location if part != _OF_KEY]
    if parts[0] in ("zoo", "heads"):
        del parts[1:2]
    return ".".join(parts)


def _value(item: ErrorDetails) -> str:
    """``=value``, unless it is a whole section, or the key itself is wrong."""
    value = item["input"]
    return "" if isinstance(value, dict) or item["loc"][-1] == _OF_KEY else f"={value}"


def _reason(message: str) -> str:
    """pydantic's message as the end of a sentence."""
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
