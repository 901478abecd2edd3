"""The interface: checked parameters, the registry, grids."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from statsmerging.choices import Needs, Returns
from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import (
    DataFreeMethod,
    EvidenceMethod,
    Method,
    PerTaskMethod,
    method_named,
    methods,
    parameter,
)
from statsmerging.merging.methods.ties import Ties

USERS_FILE = '''
from dataclasses import dataclass
from statsmerging.merging.methods import DataFreeMethod, simple_average

@dataclass(frozen=True)
class Mine(DataFreeMethod):
    """A user's own."""
    name = "mine"
    title = "Mine"

    def merge(self, bank):
        return simple_average(bank)
'''


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test defines is forgotten after it."""
    monkeypatch.setattr("statsmerging.merging.methods.base._REGISTRY", methods())


def test_every_method_file_is_found_and_complete() -> None:
    found = methods()
    assert {"simple_average", "ties", "dare_ties", "iso_cts", "regmean"} <= found.keys()
    for name, method in found.items():
        assert method.name == name
        assert method.title
        assert method.needs in get_args(Needs)
        assert method.returns in get_args(Returns)
        # All defaults are in range, and so is every value that tuning tries.
        candidates = method_named(name).candidates()
        assert all(type(candidate) is method for candidate in candidates)
        assert len(set(candidates)) == len(candidates)
        grid = method.tunable
        if grid is not None:
            assert [getattr(made, grid.parameter) for made in candidates] == list(grid.values)
            assert any(made == method() for made in candidates)
        else:
            assert candidates == (method(),)


@pytest.mark.usefixtures("registered")
def test_a_users_file_registers_when_imported(bank: TaskVectorBank, tmp_path: Path) -> None:
    file = tmp_path / "my_method.py"
    file.write_text(USERS_FILE)
    spec = importlib.util.spec_from_file_location("my_method", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_method"] = module
    try:
        spec.loader.exec_module(module)
        method = method_named("mine")
        assert isinstance(method, DataFreeMethod)
        assert method.merge(bank).keys() == {*bank.layers, "counter"}
        # Importing the file again, as a notebook does, is no clash.
        spec.loader.exec_module(module)
    finally:
        del sys.modules["my_method"]


@pytest.mark.usefixtures("registered")
def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(MergingError, match="two methods are named ties"):

        class Other(DataFreeMethod):
            name = "ties"
            title = "Other"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DataFreeMethod, {"needs": "weights"}, "needs='weights': choose one of nothing"),
        (Method, {"needs": ["nothing"]}, "choose one of nothing, unlabeled images, activations, "),
        (Method, {}, "needs=None: choose one of nothing, unlabeled images, activations, gradients"),
        (Method, {"needs": "nothing", "returns": "weights"}, "choose one of state dict, router, a"),
        (EvidenceMethod, {"needs": "nothing"}, "choose one of activations, gradients"),
        (PerTaskMethod, {"returns": "router"}, "returns='router': choose one of adapters"),
        (DataFreeMethod, {"title": None}, "it has no title"),
    ],
)
def test_what_no_method_can_need_or_return_is_refused_when_it_is_defined(
    kind: type[Method], values: dict[str, object], message: str
) -> None:
    with pytest.raises(MergingError, match=message) as refused:
        type("Odd", (kind,), {"name": "odd", "title": "Odd", **values})
    assert str(refused.value).startswith("method odd: ")
    assert "odd" not in methods()


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(
        MergingError, match=r"method=tie: choose one of ace, breadcrumbs, cart, consensus, "
    ):
        method_named("tie")
    with pytest.raises(
        MergingError,
        match=r"ties\.scal: unknown .*choose from density, scale; did you mean scale\?$",
    ):
        method_named("ties", scal=1.0)
    with pytest.raises(MergingError, match=r"simple_average\.scale: .* has no parameters$"):
        method_named("simple_average", scale=1.0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ties", {"density": 1.5}, "ties.density=1.5: must be above 0 and at most 1"),
        ("ties", {"density": 0}, "ties.density=0: must be above 0 and at most 1"),
        ("ties", {"scale": -0.1}, "ties.scale=-0.1: must be at least 0"),
        ("ties", {"scale": float("inf")}, "ties.scale=inf: must be a finite number"),
        ("ties", {"scale": float("nan")}, "ties.scale=nan: must be a finite number"),
        ("ties", {"scale": "big"}, "ties.scale=big: must be a finite number"),
        ("ties", {"scale": True}, "ties.scale=True: must be a finite number"),
        ("dare_ties", {"drop_rate": 1}, "dare_ties.drop_rate=1: must be at least 0 and below 1"),
        ("dare_ties", {"seed": 1.0}, "dare_ties.seed=1.0: must be a whole number"),
        ("consensus", {"agreement": True}, "consensus.agreement=True: must be a whole number"),
        ("wudi", {"learning_rate": 0}, "wudi.learning_rate=0: must be above 0"),
        ("fisher", {"normalise": 1}, "fisher.normalise=1: must be true or false"),
    ],
)
def test_wrong_values_are_refused_in_one_line(
    name: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(MergingError) as refused:
        method_named(name, **values)
    assert str(refused.value) == message


@given(density=st.floats())
def test_a_range_is_exactly_what_it_says(density: float) -> None:
    if 0 < density <= 1:
        assert method_named("ties", density=density) == Ties(density)
    else:
        with pytest.raises(MergingError, match=r"^ties\.density="):
            method_named("ties", density=density)


@pytest.mark.usefixtures("registered")
def test_a_choice_is_one_of_its_values() -> None:
    @dataclass(frozen=True)
    class Choosy(DataFreeMethod):
        name = "choosy"
        title = "Choosy"
        colour: Literal["red", "blue"] = parameter("red")

        def merge(self, bank: TaskVectorBank) -> dict[str, Tensor]:
            return bank.kept

    assert method_named("choosy", colour="blue") == Choosy("blue")
    with pytest.raises(MergingError, match=r"choosy\.colour=green: must be one of red, blue"):
        method_named("choosy", colour="green")
