"""The methods that the config chooses, with their parameters and the grids for tuning them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import ValidationError

from statsmerging.errors import UserError
from statsmerging.learning.settings import LabelsSettings, LearnedMethodSettings, TrainerSettings
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods import Method, method_named
from statsmerging.settings import describe


@dataclass(frozen=True)
class LearnedMethod:
    """A method whose coefficients are learned: StatsMerging, its controls, AdaMerging."""

    name: str
    settings: LearnedMethodSettings

    def about(self, labels: LabelsSettings) -> dict[str, Any]:
        """Title, needs, returns and parameters, for the record.

        Args:
            labels: of the run.
        """
        settings = self.settings
        kind = self.labels(labels).kind
        from_labels = settings.objective != "entropy" and kind == "ground_truth"
        labelled = from_labels or settings.learner == "released_code"
        return {
            "title": settings.title,
            "needs": "labels" if labelled else "unlabeled images",
            "returns": "state dict",
            "parameters": settings.model_dump(exclude={"title", "tune"}),
        }

    @property
    def grid(self) -> tuple[float, ...]:
        """The learning rates that are tried."""
        return tuple(self.settings.tune or ())

    @property
    def tuned_parameter(self) -> str:
        return "learning_rate"

    def may_be(self, value: float) -> bool:
        """Whether the tuned parameter may have this value."""
        return value >= 0

    def candidates(self) -> Iterator[LearnedMethod]:
        """The method with every learning rate of its grid."""
        for rate in self.grid:
            settings = self.settings.model_copy(update={"learning_rate": rate})
            # Another name, so that it has other checkpoints.
            name = self.name if settings == self.settings else f"{self.name}-{rate:g}"
            yield LearnedMethod(name, settings)

    def labels(self, labels: LabelsSettings) -> LabelsSettings:
        """The run's settings of the labels, or this method's own."""
        return self.settings.labels or labels

    def trainer(self, settings: TrainerSettings) -> TrainerSettings:
        """The run's settings of the optimisation, with those that this method has of its own."""
        own: dict[str, Any] = {"learning_rate": self.settings.learning_rate}
        if self.settings.sharpness is not None:
            own["sharpness"] = self.settings.sharpness
            own["relative_sharpness"] = self.settings.relative_sharpness
        return settings.model_copy(update=own)


@dataclass(frozen=True)
class FixedMethod:
    """A method of ``merging.methods``, and the values its one tunable parameter may take."""

    method: Method
    grid: tuple[float, ...]

    @classmethod
    def with_defaults(cls, method: type[Method]) -> Self:
        """A method with the defaults of its parameters, and the values of its own grid."""
        return cls(method(), () if method.tunable is None else tuple(method.tunable.values))

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def tuned_parameter(self) -> str:
        """Empty: there is none, and no grid."""
        return "" if self.method.tunable is None else self.method.tunable.parameter

    def may_be(self, value: float) -> bool:
        """Whether the tuned parameter may have this value."""
        return self.method.complaint(self.tuned_parameter, value) is None

    def candidates(self) -> Iterator[FixedMethod]:
        """The method with every value of the grid."""
        for value in self.grid:
            yield FixedMethod(replace(self.method, **{self.tuned_parameter: value}), self.grid)


def parse_methods(section: Mapping[str, Mapping[str, Any]]) -> list[LearnedMethod | FixedMethod]:
    """The methods of the config's section ``method``, in its order.

    Raises:
        UserError: no method, an unknown method or parameter, or a value that is not valid; the
            message names the key and the valid choices.
    """
    if not section:
        raise UserError("method: choose at least one, e.g. method=stats_merging or method=[ties]")
    return [_parse(name, dict(entry)) for name, entry in section.items()]


def _parse(name: str, entry: dict[str, Any]) -> LearnedMethod | FixedMethod:
    if "learner" in entry:
        try:
            return LearnedMethod(name, LearnedMethodSettings.model_validate(entry))
        except ValidationError as error:
            raise UserError(describe(error, f"method.{name}.")) from error
    tune = entry.pop("tune", None)
    try:
        method = method_named(name, **entry)
    except MergingError as error:
        separator = "" if str(error).startswith("method=") else "method."
        raise UserError(f"{separator}{error}") from error
    if tune is None:
        return FixedMethod(method, ())
    if not isinstance(tune, list) or any(
        not isinstance(value, int | float) or isinstance(value, bool) for value in tune
    ):
        raise UserError(f"method.{name}.tune={tune}: give a list of numbers, e.g. [0.5,1.0]")
    if tune and method.tunable is None:
        raise UserError(f"method.{name}.tune: this method has nothing to tune")
    for value in tune:
        assert method.tunable is not None
        wanted = method.complaint(method.tunable.parameter, value)
        if wanted is not None:
            raise UserError(
                f"method.{name}.tune={value}: {method.tunable.parameter} must be {wanted}"
            )
    return FixedMethod(method, tuple(tune))
