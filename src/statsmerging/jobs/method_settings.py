"""The config's section ``method``: name → parameters, as methods that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statsmerging.jobs.early_checks import grid_of, learned_settings
from statsmerging.jobs.learning import LearnedMethod
from statsmerging.jobs.methods import FixedMethod
from statsmerging.merging.methods import method_named
from statsmerging.records.errors import UserError


def parse_methods(section: Mapping[str, Mapping[str, Any]]) -> list[LearnedMethod | FixedMethod]:
    """The methods to compare, in the order of the config.

    Raises:
        UserError: a value of a learned method, or of ``tune``, that is not valid.
        MergingError: an unknown method or parameter, or a value out of its range.
    """
    return [_parse(name, dict(entry)) for name, entry in section.items()]


def _parse(name: str, entry: dict[str, Any]) -> LearnedMethod | FixedMethod:
    if "learner" in entry:
        return LearnedMethod(name, learned_settings(name, entry))
    grid = grid_of(name, entry)
    method = method_named(name, **{key: entry[key] for key in entry if key != "tune"})
    if grid and method.tunable is None:
        raise UserError(f"method.{name}.tune: this method has nothing to tune")
    return FixedMethod(method, grid)
