"""What can be refused before torch is imported, which takes seconds: methods and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from statsmerging.distillation.settings import LearnedMethodSettings
from statsmerging.jobs.declarations import Declaration, declarations, own_files
from statsmerging.jobs.schema import Config, describe
from statsmerging.records.errors import UserError


def check_early(config: Config) -> None:
    """Check the methods' parameters, and the names of the tasks.

    Raises:
        UserError: names what is wrong, and valid choices.
    """
    _check_methods(config)
    _check_tasks(config)


def learned_settings(name: str, entry: Mapping[str, Any]) -> LearnedMethodSettings:
    """The settings of a method that learns coefficients.

    Raises:
        UserError: names every value that is not valid.
    """
    try:
        return LearnedMethodSettings.model_validate(entry)
    except ValidationError as error:
        raise UserError(describe(error, f"method.{name}.")) from error


def grid_of(name: str, entry: Mapping[str, Any]) -> tuple[float, ...]:
    """The values of ``tune``; none where nothing is tuned.

    Raises:
        UserError: anything but a list of numbers.
    """
    grid = entry.get("tune")
    if grid is None:
        return ()
    if not isinstance(grid, list) or any(not _is_number(value) for value in grid):
        raise UserError(f"method.{name}.tune={grid}: give a list of numbers, e.g. [0.5,1.0]")
    return tuple(grid)


def _check_methods(config: Config) -> None:
    known = declarations([*own_files(), *config.plugins])
    if not config.method:
        raise UserError("method: choose at least one, e.g. method=stats_merging or method=[ties]")
    for name, entry in config.method.items():
        if "learner" in entry:
            learned_settings(name, entry)
        elif name in known:
            _check_parameters(name, entry, known[name])
        elif not config.plugins:  # a plugin may bring methods in any way: importing it tells
            raise UserError(f"method={name}: choose one of {', '.join(sorted(known))}")


def _check_parameters(name: str, entry: Mapping[str, Any], declared: Declaration) -> None:
    valid = list(declared.parameters)
    for key, value in entry.items():
        if key == "tune":
            continue
        if key not in valid:
            choices = f"choose from {', '.join(valid)}" if valid else "the method has no parameters"
            raise UserError(f"method.{name}.{key}: unknown parameter; {choices}")
        wanted = declared.complaint(key, value)
        if wanted is not None:
            raise UserError(f"method.{name}.{key}={value}: must be {wanted}")
    for value in grid_of(name, entry):
        if declared.tunable is None:
            raise UserError(f"method.{name}.tune: this method has nothing to tune")
        wanted = declared.complaint(declared.tunable, value)
        if wanted is not None:
            raise UserError(f"method.{name}.tune={value}: {declared.tunable} must be {wanted}")


def _check_tasks(config: Config) -> None:
    suite = config.suite
    if suite.kind == "embedded":
        from statsmerging.data.embedded_suite import embedded_suite

        embedded_suite(suite.tasks, suite.unseen)
    elif suite.kind == "folder" and suite.root is not None:
        from statsmerging.data.folder_suite import chosen_folders

        chosen_folders(suite.root, suite.tasks, suite.unseen)
    elif suite.kind == "hub":
        from statsmerging.data.suites import choose_tasks

        choose_tasks(suite.catalogue, suite.tasks, suite.unseen, where="the catalogue")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
