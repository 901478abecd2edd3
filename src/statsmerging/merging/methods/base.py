"""A merging method: named, with checked parameters, registered when it is defined."""

from __future__ import annotations

import inspect
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self, TypeVar, get_args, get_type_hints

import torch
from torch import Tensor

from statsmerging.choices import Needs, Returns
from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError, choose_one

T = TypeVar("T")

_LIMITS: dict[str, Callable[[Any, Any], bool]] = {
    "above": operator.gt,
    "at least": operator.ge,
    "below": operator.lt,
    "at most": operator.le,
}


@dataclass(frozen=True)
class Grid:
    """The values of one parameter that tuning tries."""

    parameter: str
    values: tuple[float, ...]


def parameter(
    default: T,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> T:
    """A method's parameter with its published default and the range it must lie in."""
    limits = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    stated = {word: limit for word, limit in limits.items() if limit is not None}
    return field(default=default, metadata=stated)


def complaint(value: object, kind: object, limits: Mapping[str, float]) -> str | None:
    """The rule that a parameter's value breaks; ``None`` if it is valid."""
    choices = get_args(kind)
    if choices:
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        return "a whole number"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "a finite number"
    if all(_LIMITS[word](value, limit) for word, limit in limits.items()):
        return None
    return " and ".join(f"{word} {limit:g}" for word, limit in limits.items())


@dataclass(frozen=True)
class TaskModels(Mapping[str, dict[str, Tensor]]):
    """Task → full state dict, built anew each time it is asked for.

    Args:
        tasks: in the order of the bank.
        build: task → its state dict.
    """

    tasks: tuple[str, ...]
    build: Callable[[str], dict[str, Tensor]]

    def __getitem__(self, task: str) -> dict[str, Tensor]:
        if task not in self.tasks:
            raise KeyError(task)
        return self.build(task)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tasks)

    def __len__(self) -> int:
        return len(self.tasks)


#: What a method knows about the experts beyond their weights: task → layer → tensor.
Evidence = Mapping[str, Mapping[str, Tensor]]

#: A method as a function of a bank and of its parameters, which are given by name.
MergeFunction = Callable[..., dict[str, Tensor]]
PerTaskFunction = Callable[..., TaskModels]

_REGISTRY: dict[str, type[Method]] = {}

#: Names become keys of the config and parts of the names of files.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Method(ABC):
    """A merging method; its fields are its parameters, checked when it is made.

    Defining a subclass with a ``name`` registers it. Subclass ``DataFreeMethod``,
    ``EvidenceMethod`` or ``PerTaskMethod``, which declare ``merge``; a method that trains
    something has functions with other names.

    Raises:
        MergingError: a parameter of the wrong type or out of its range; already when the class is
            defined, if it has no title, an unknown ``needs`` or ``returns``, or the name of
            another method.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[Needs]
    returns: ClassVar[Returns] = "state dict"
    tunable: ClassVar[Grid | None] = None

    #: Valid values of ``needs`` and ``returns`` for methods of this kind.
    kinds_of_needs: ClassVar[tuple[str, ...]] = get_args(Needs)
    kinds_of_returns: ClassVar[tuple[str, ...]] = get_args(Returns)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            return
        cls._check_class()
        known = _REGISTRY.setdefault(cls.name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise MergingError(
                f"two methods are named {cls.name}: {known} and {cls}; give yours another name"
            )
        _REGISTRY[cls.name] = cls

    @classmethod
    def _check_class(cls) -> None:
        if not _NAME.fullmatch(cls.name):
            raise MergingError(
                f"method {cls.name!r}: a name has letters, digits and _ . + - alone, a letter or "
                "digit first"
            )
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

    @property
    def heading(self) -> str:
        """Of its row in a table: the title, with the choice that makes it another method."""
        return self.title

    @classmethod
    def complaint(cls, parameter: str, value: object) -> str | None:
        """The rule that the value of a parameter breaks; ``None`` if it is valid."""
        (limits,) = [item.metadata for item in fields(cls) if item.name == parameter]
        return complaint(value, get_type_hints(cls)[parameter], limits)

    @classmethod
    def recovering(cls, copies: int) -> Mapping[str, object] | None:
        """Parameters with which some copies of one expert give that expert; ``None``: none do."""
        del copies
        return None

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
    """A closed form of the weights and of evidence that was collected from the experts."""

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
        raise MergingError(f"method={name}: {choose_one(name, methods())}")
    method = _REGISTRY[name]
    valid = [item.name for item in fields(method)]
    for unknown in parameters.keys() - set(valid):
        choices = (
            choose_one(unknown, valid, "choose from") if valid else "the method has no parameters"
        )
        raise MergingError(f"{name}.{unknown}: unknown parameter; {choices}")
    return method(**parameters)


def as_function(
    method: type[DataFreeMethod] | type[PerTaskMethod],
) -> Callable[..., dict[str, Tensor] | TaskModels]:
    """The method as a function of a bank and of its parameters, e.g. ``ties(bank, density=0.1)``.

    Its errors are those of ``method_named``.
    """

    def function(bank: TaskVectorBank, **parameters: object) -> dict[str, Tensor] | TaskModels:
        made = method_named(method.name, **parameters)
        assert isinstance(made, DataFreeMethod | PerTaskMethod)
        return made.merge(bank)

    # What ``help`` shows: the method's own words and the defaults of its parameters.
    own = inspect.signature(method).parameters.values()
    stated = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    whole = inspect.signature(function)
    taken = [whole.parameters["bank"], *stated]
    function.__signature__ = whole.replace(parameters=taken)  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = method.name
    function.__doc__ = method.__doc__
    return function


def merge(
    experts: Mapping[str, Mapping[str, Tensor]],
    method: str,
    *,
    pretrained: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **parameters: object,
) -> dict[str, Tensor]:
    """The state dict of experts that are merged by a method that needs the weights alone.

    >>> start = {"weight": torch.zeros(2, 2)}
    >>> experts = {"mnist": {"weight": torch.eye(2)}, "svhn": {"weight": torch.ones(2, 2)}}
    >>> merge(experts, "task_arithmetic", pretrained=start, scale=0.5)
    {'weight': tensor([[1.0000, 0.5000],
            [0.5000, 1.0000]])}

    Args:
        experts: task name → θ_k, with the names and shapes of ``pretrained``.
        method: its name; ``methods()`` has them all.
        pretrained: θ₀ by tensor name, from which all experts were fine-tuned.
        dtype: precision of the task vectors.
        device: where they live, and the result.
        parameters: of the method; those that are not given have their published defaults.

    Raises:
        MergingError: an unknown method or parameter, a value out of its range, a method that needs
            more than weights or gives more than one model, or weights that do not fit together.
    """
    data_free = [name for name, each in methods().items() if issubclass(each, DataFreeMethod)]
    if method not in methods():
        raise MergingError(f"method={method}: {choose_one(method, data_free)}")
    made = method_named(method, **parameters)
    if not isinstance(made, DataFreeMethod):
        wants = "gives every task a model of its own" if made.needs == "nothing" else "needs data"
        raise MergingError(f"method={method} {wants}: choose one of {', '.join(data_free)}")
    return made.merge(
        TaskVectorBank.from_state_dicts(pretrained, experts, dtype=dtype, device=device)
    )


def check_evidence(bank: TaskVectorBank, evidence: Evidence) -> None:
    """Raise ``MergingError`` unless there is evidence of every task for some merged layer."""
    for task in bank.tasks:
        if task not in evidence:
            raise MergingError(f"there is no evidence for task {task}")
        if not evidence[task].keys() & bank.pretrained.keys():
            raise MergingError(f"the evidence for task {task} names none of the merged layers")


def layer_evidence(
    bank: TaskVectorBank, evidence: Evidence, layer: str, shape: tuple[int, ...]
) -> list[Tensor] | None:
    """The K tensors for a layer in the order of the bank's tasks; None if there are none.

    Raises:
        MergingError: only some tasks have evidence for the layer, or a tensor of another shape
            or with NaN or infinite values.
    """
    present = [task for task in bank.tasks if layer in evidence[task]]
    if not present:
        return None
    found = []
    for task in bank.tasks:
        if task not in present:
            raise MergingError(f"{layer!r}: evidence for task {present[0]}, but none for {task}")
        tensor = evidence[task][layer]
        if tuple(tensor.shape) != shape:
            raise MergingError(
                f"{layer!r}: evidence for task {task} has shape {tuple(tensor.shape)}, "
                f"expected {shape}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise MergingError(f"{layer!r}: evidence for task {task} has NaN or infinite values")
        found.append(tensor.to(bank.device))
    return found
