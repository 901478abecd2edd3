"""The settings of a sweep as rivals: each method with itself, across the values of one key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from statsmerging.errors import UserError
from statsmerging.report.groups import RunGroup, setting_text
from statsmerging.report.runs import ReportedRun
from statsmerging.runs.outcomes import Outcomes
from statsmerging.runs.results import BOUNDS, method_title


class Rivals(NamedTuple):
    """Methods that may be compared: of one setting, or of several as if each had its own.

    Attributes:
        group: the runs; its differences are those that remain.
        variants: title of a method → the names of its variants, in the order of the settings; empty
            for the methods of one setting.
    """

    group: RunGroup
    variants: Mapping[str, list[str]]


def across(groups: Sequence[RunGroup], key: str) -> list[Rivals]:
    """The groups that differ in nothing but a key, or in all keys of a section, put together.

    Args:
        groups: of all settings.
        key: dotted, e.g. ``statistics.features`` or ``labels``.

    Raises:
        UserError: no two settings differ in it alone; names the keys in which they do.
    """
    alike: dict[tuple[str, ...], list[RunGroup]] = {}
    for group in groups:
        remaining = replace(group, differences=_remaining(group, key))
        alike.setdefault((group.problem, *remaining.setting), []).append(group)
    found = [_variants(members, key) for members in alike.values() if len(members) > 1]
    if not found:
        known = sorted({name for group in groups for name in group.differences})
        raise UserError(
            f"job.across={key}: no two settings there differ in it alone; they differ in "
            f"{', '.join(known) or 'nothing'}"
        )
    return found


def _variants(groups: Sequence[RunGroup], key: str) -> Rivals:
    members: list[ReportedRun] = []
    variants: dict[str, dict[str, None]] = {}
    for group in groups:
        value = ", ".join(
            setting_text(value)
            if name == key
            else f"{name.removeprefix(f'{key}.')}={setting_text(value)}"
            for name, value in group.differences.items()
            if _inside(name, key)
        )
        for run in group.members:
            members.append(renamed(run, value))
            for method, row in run.results.methods.items():
                if method not in BOUNDS:
                    title = method_title(method, row.title)
                    variants.setdefault(title, {})[_variant(method, value)] = None
    group = replace(groups[0], members=members, differences=_remaining(groups[0], key))
    return Rivals(group, {title: list(names) for title, names in variants.items()})


def renamed(run: ReportedRun, value: str) -> ReportedRun:
    """The run with the value in the name and the title of each method that is no bound."""

    def name_of(method: str) -> str:
        return method if method in BOUNDS else _variant(method, value)

    rows: dict[str, Any] = {}
    for method, row in run.results.methods.items():
        title = row.title if method in BOUNDS else f"{method_title(method, row.title)}, {value}"
        rows[name_of(method)] = row.model_copy(update={"title": title})
    outcomes = run.outcomes
    if outcomes is not None:
        packed = {(name_of(name), task): bits for (name, task), bits in outcomes.packed.items()}
        outcomes = Outcomes(packed, outcomes.images)
    results = run.results.model_copy(update={"methods": rows})
    return replace(run, results=results, outcomes=outcomes)


def _variant(method: str, value: str) -> str:
    return f"{method}, {value}"


def _remaining(group: RunGroup, key: str) -> dict[str, Any]:
    """The differences of a group besides a key, without parameters of methods, which follow it."""
    return {
        name: value
        for name, value in group.differences.items()
        if not _inside(name, key) and not name.startswith("method")
    }


def _inside(name: str, key: str) -> bool:
    return name == key or name.startswith(f"{key}.")
