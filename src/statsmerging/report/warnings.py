"""What runs warned of, said once: warnings that differ in names and numbers alone are one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from statsmerging.report.groups import RunGroup
from statsmerging.runs.results import RunResults


class Warned(NamedTuple):
    """Warnings of one kind.

    Attributes:
        text: the first of them.
        among: how many are alike, and in how many runs; empty for a warning of the only run.
    """

    text: str
    among: str


def warned(groups: Sequence[RunGroup]) -> list[Warned]:
    """The kinds of warnings of all runs; what most runs warn of comes first."""
    runs = [results for group in groups for results in group.results]
    alike: dict[str, dict[str, set[int]]] = {}
    for number, run in enumerate(runs):
        names = _names(run)
        for line in run.warnings:
            alike.setdefault(_kind(line, names), {}).setdefault(line, set()).add(number)
    kinds = [
        (next(iter(lines)), len(lines), set().union(*lines.values())) for lines in alike.values()
    ]
    kinds.sort(key=lambda kind: -len(kind[2]))
    return [Warned(text, _among(count, len(places), len(runs))) for text, count, places in kinds]


def _among(lines: int, having: int, runs: int) -> str:
    others = lines - 1
    parts = [f"and {others} alike" if others else ""]
    parts.append(f"in {having} of {runs} runs" if runs > 1 else "")
    told = ", ".join(filter(None, parts))
    return f"({told})" if told else ""


def _names(run: RunResults) -> list[str]:
    """Names of methods and tasks, long ones first: a name may be part of another."""
    first = next(iter(run.methods.values()))
    return sorted({*run.methods, *first.accuracy, *first.unseen.accuracy}, key=len, reverse=True)


def _kind(line: str, names: Iterable[str]) -> str:
    """The line without names, numbers and lengths of lists."""
    known = "|".join(map(re.escape, names))
    kind = re.sub(rf"(?<!\w)(?:{known})(?!\w)", "*", line)
    kind = re.sub(r"(?<!\w)\w+(?:\.\w+)+", "*", kind)  # layers, and numbers with a point
    kind = re.sub(r"[+−-]?\d+(?:e[+-]?\d+)?", "*", kind)
    return re.sub(r"\*(?: \(\* %\))?(?:, \*(?: \(\* %\))?)*", "*", kind)
