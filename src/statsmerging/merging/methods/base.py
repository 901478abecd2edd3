"""What a merging method is: named, with checked parameters, registered by being defined.

>>> method_named("ties", density=0.1).merge(bank)
>>> method_named("fisher").merge(bank, evidence)

A new method is one new file with one class; see ``task_arithmetic.py`` for the shortest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self, get_args, get_type_hints

from torch import Tensor

from statsmerging.choices import Needs, Returns
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.parameters import Grid, complaint
from statsmerging.merging.methods.task_models import TaskModels

#: What a method knows about the experts beyond their weights: task → layer → tensor.
Evidence = Mapping[str, Mapping[str, Tensor]]

_REGISTRY: dict[str, type[Method]] = {}


@dataclass(frozen=True)
class Method(ABC):
    """A merging method; its fields are its parameters, checked when it is made.

    Defining a subclass with a ``name`` registers it. Subclass ``DataFreeMethod``,
    ``EvidenceMethod`` or ``PerTaskMethod``, which say what ``merge`` takes and gives; a method
    that trains something has verbs of its own.

    Raises:
        MergingError: a parameter of the wrong type or out of its range; already when the class is
            defined, where it has no title, needs or returns something that nobody can give or
            take, or bears another method's name.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[Needs]
    returns: ClassVar[Returns] = "state dict"
    tunable: ClassVar[Grid | None] = None

    #: What a method of this kind may say that it needs, and that it returns.
    kinds_of_needs: ClassVar[tuple[str, ...]] = get_args(Needs)
    kinds_of_returns: ClassVar[tuple[str, ...]] = get_args(Returns)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            return
        cls._check_class()
        known = _REGISTRY.setdefault(cls.name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise MergingError(f"two methods are named {cls.name}: {known} and {cls}")
        _REGISTRY[cls.name] = cls

    @classmethod
    def _check_class(cls) -> None:
        if not isinstance(getattr(cls, "title", None), str):
            raise MergingError(f"method {cls.name}: it has no title")
        for what, choices in (("needs", cls.kinds_of_needs), ("returns", cls.kinds_of_returns)):
            value = getattr(cls, what, None)
            if value not in choices:
                raise MergingError(
                    f"method {cls.name}: {what}={value!r}: choose one of {', '.join(choices)}"
                )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            wanted = self.complaint(item.name, value)
            if wanted is not None:
                raise MergingError(f"{self.name}.{item.name}={value}: must be {wanted}")

    @classmethod
    def complaint(cls, parameter: str, value: object) -> str | None:
        """What a parameter must be, if the value is not valid; ``None`` if it is."""
        (limits,) = [item.metadata for item in fields(cls) if item.name == parameter]
        return complaint(value, get_type_hints(cls)[parameter], limits)

    def candidates(self) -> tuple[Self, ...]:
        """This method with every value of its grid; itself where nothing is tuned."""
        if self.tunable is None:
            return (self,)
        return tuple(
            replace(self, **{self.tunable.parameter: value}) for value in self.tunable.values
        )


class DataFreeMethod(Method):
    """A method that needs the weights alone."""

    needs = "nothing"
    kinds_of_needs = ("nothing",)
    kinds_of_returns = ("state dict",)

    @abstractmethod
    def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
        """Full state dict of the merged model, in θ₀'s precision, on the bank's device."""


class EvidenceMethod(Method):
    """A closed form given evidence that somebody has collected from the experts."""

    kinds_of_needs = ("activations", "gradients")
    kinds_of_returns = ("state dict",)

    @abstractmethod
    def merge(self, bank: TaskVectorBank, evidence: Evidence) -> dict[str, Tensor]:
        """Full state dict of the merged model, in θ₀'s precision, on the bank's device.

        Raises:
            MergingError: evidence that does not fit the bank.
        """


class PerTaskMethod(Method):
    """A method that needs the weights alone and gives every task a model of its own."""

    needs = "nothing"
    returns = "adapters"
    kinds_of_needs = ("nothing",)
    kinds_of_returns = ("adapters",)

    @abstractmethod
    def merge(self, bank: TaskVectorBank) -> TaskModels:
        """Task → full state dict, in θ₀'s precision, on the bank's device."""


def methods() -> dict[str, type[Method]]:
    """All registered methods by name, in alphabetical order."""
    return dict(sorted(_REGISTRY.items()))


def method_named(name: str, /, **parameters: object) -> Method:
    """The method with that name and those parameters; defaults for those not given.

    Raises:
        MergingError: an unknown name or parameter (the message lists the valid ones), or a
            value out of its range.
    """
    if name not in _REGISTRY:
        raise MergingError(f"method={name}: choose one of {', '.join(methods())}")
    method = _REGISTRY[name]
    valid = [item.name for item in fields(method)]
    for unknown in parameters.keys() - set(valid):
        choices = f"choose from {', '.join(valid)}" if valid else "the method has no parameters"
        raise MergingError(f"{name}.{unknown}: unknown parameter; {choices}")
    return method(**parameters)
