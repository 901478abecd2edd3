"""Two records of the same run: in what circumstances and in which numbers do they differ?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from statsmerging.errors import printable

#: Parts of a manifest that tell the circumstances of a run, and what each is called in a message.
_CIRCUMSTANCES = {
    "code": "code",
    "plugins": "plugin",
    "packages": "package",
    "hardware": "machine",
    "weights": "weights",
    "files": "file",
    "data": "data",
}


#: Circumstances under which the same bits are promised. The platform's name changes with every
#: patch of the kernel and decides nothing.
_PROMISED = ("code", "plugins", "packages", "hardware", "weights", "data")


_IRRELEVANT = ("platform", "path")


@dataclass(frozen=True)
class Difference:
    """One value that is not the same.

    Attributes:
        name: dotted, within the record.
        before: value in the first record; ``None`` where it has none.
        after: value in the second record; ``None`` where it has none.
    """

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return printable(f"{self.name}: {_shown(self.before)} → {_shown(self.after)}")

    @property
    def of_numbers(self) -> bool:
        """Whether one of the values is a number; the other one may be missing."""
        return _is_number(self.before) or _is_number(self.after)

    @property
    def size(self) -> float:
        """How far two numbers are apart; infinite where one is missing."""
        if not (_is_number(self.before) and _is_number(self.after)):
            return math.inf
        return abs(float(self.before) - float(self.after))


def circumstances(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Differences of code, plugins, packages, machine, weights, files and data of two manifests."""
    return [
        Difference(f"{called} {difference.name}", difference.before, difference.after)
        for part, called in _CIRCUMSTANCES.items()
        if part in before and part in after
        for difference in differences(before[part], after[part])
        if difference.name.rpartition(".")[2] not in _IRRELEVANT
    ]


def same_bits_promised(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the same run must give the same bits: same code, packages, machine kind, inputs.

    Of code with uncommitted changes nobody knows whether it is the same. A manifest that says
    nothing of plugins is of a run without any, or of one whose plugins nobody knows.
    """
    if any(manifest.get("code", {}).get("modified") for manifest in (before, after)):
        return False
    parts = [({part: before.get(part, {})}, {part: after.get(part, {})}) for part in _PROMISED]
    return not any(circumstances(first, second) for first, second in parts)


def differences(before: Any, after: Any, name: str = "") -> Iterator[Difference]:
    """Every leaf of two nested records that is not exactly the same."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(before.get(key), after.get(key), inner)
    elif before != after:
        yield Difference(name, before, after)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
