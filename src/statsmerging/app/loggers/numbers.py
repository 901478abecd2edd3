"""The numbers of ``results.json`` under flat names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from statsmerging.runs.results import RunResults

Path = tuple[str, ...]


def flat_numbers(results: RunResults) -> dict[str, float]:
    """Every number, e.g. ``accuracy/ties/mnist`` or ``teachers/mnist/label_agreement``.

    The quantity stands before the method, so that all methods' values of it stand together.
    """
    found = {}
    for path, value in _numbers(results.as_json(), ()):
        if path[0] == "methods":
            _, method, quantity, *rest = path
            path = (quantity, method, *rest)
        found["/".join(path)] = value
    return found


def _numbers(value: Any, path: Path) -> Iterator[tuple[Path, float]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, (*path, key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _numbers(entry, (*path, str(index)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value
