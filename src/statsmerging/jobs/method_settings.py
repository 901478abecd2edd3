"""The config's section ``method``: name → parameters, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from statsmerging.distillation.settings import LearnedMethodSettings
from statsmerging.jobs.methods import FixedMethod, LearnedMethod
from statsmerging.jobs.schema import describe
from statsmerging.merging.methods import method_named
from statsmerging.records.errors import UserError


def parse_methods(section: Mapping[str, Mapping[str, Any]]) -> list[LearnedMethod | FixedMethod]:
    """The methods to compare, in the order of the config.

    Raises:
        UserError: no method, or a value of a learned method that is not valid.
        MergingError: an unknown method or parameter, or a value out of its range.
    """
    if not section:
        raise UserError("method: choose at least one, e.g. method=stats_merging")
    return [_parse(name, dict(entry)) for name, entry in section.items()]


def _parse(name: str, entry: dict[str, Any]) -> LearnedMethod | FixedMethod:
    if "learner" in entry:
        try:
            return LearnedMethod(name, LearnedMethodSettings.model_validate(entry))
        except ValidationError as error:
            raise UserError(describe(error, f"method.{name}.")) from error
    grid = tuple(entry.pop("tune", None) or ())
    method = method_named(name, **entry)
    if grid and method.tunable is None:
        raise UserError(f"method.{name}.tune: this method has nothing to tune")
    return FixedMethod(method, grid)
