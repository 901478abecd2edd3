"""Differences between two records of the same run: of circumstances, and of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from statsmerging.errors import printable
from statsmerging.runs.layer_tables import read_coefficients
from statsmerging.runs.results import RunResults

#: Parts of a manifest that record the circumstances of a run → their names in a message.
_CIRCUMSTANCES = {
    "code": "code",
    "plugins": "plugin",
    "packages": "package",
    "hardware": "machine",
    "weights": "weights",
    "files": "file",
    "data": "data",
}

#: If these are equal, the same bits are promised. The platform's name is not compared: it changes
#: with every patch of the kernel.
_PROMISED = ("code", "plugins", "packages", "hardware", "weights", "data")

_IRRELEVANT = ("platform", "path")


@dataclass(frozen=True)
class Difference:
    """One value that is not the same.

    Attributes:
        name: dotted, within the record.
        before: value in the first record, or ``None``.
        after: value in the second record, or ``None``.
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
        """Distance of the two numbers; infinite if one is missing."""
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

    Code with uncommitted changes is never counted as the same. A manifest without an entry for
    plugins comes from a run without plugins, or from a version that did not record them.
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


def result_differences(before: RunResults, after: RunResults) -> list[Difference]:
    """Every number of the first results that is not the same in the second ones.

    Parameters of methods, movements of their weights and costs that the first version did not
    record yet are not compared, and no measurements: they change from run to run.
    """
    rows = {}
    for method, row in after.methods.items():
        first = before.methods.get(method, row)
        known: dict[str, Any] = {}
        if first.parameters:
            known["parameters"] = {
                key: value for key, value in row.parameters.items() if key in first.parameters
            }
        if not first.movement:
            known["movement"] = {}
        if first.cost is None:
            known["cost"] = None
        rows[method] = row.model_copy(update=known)
    comparable = after.model_copy(update={"methods": rows, "measured": {}})
    found = differences(before.model_copy(update={"measured": {}}).as_json(), comparable.as_json())
    return [difference for difference in found if difference.of_numbers]


def coefficient_differences(before: Path | None, after: Path) -> list[Difference]:
    """Largest difference of the coefficients of each method; empty if all are the same.

    Args:
        before: ``coefficients.parquet`` of the first run; ``None`` if it learned none.
        after: that of the second run; it may not exist.
    """
    tables = [
        read_coefficients(path).set_index(["method", "layer", "task", "direction"])["coefficient"]
        if path is not None and path.exists()
        else pd.Series(dtype=float)
        for path in (before, after)
    ]
    if tables[0].equals(tables[1]):
        return []
    distances = tables[0].sub(tables[1]).abs().fillna(math.inf).groupby("method").max()
    return [
        Difference(f"coefficients.{method}, largest difference", 0.0, float(value))
        for method, value in distances.items()
        if value > 0
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
