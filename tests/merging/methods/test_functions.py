"""Methods that need the weights alone are called one way: on a bank, and from state dicts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import statsmerging
from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging import methods as package
from statsmerging.merging.methods import (
    DataFreeMethod,
    PerTaskMethod,
    emr,
    merge,
    method_named,
    methods,
    simple_average,
    ties,
)

States = dict[str, dict[str, Tensor]]

DATA_FREE = [name for name, each in methods().items() if issubclass(each, DataFreeMethod)]
PER_TASK = [name for name, each in methods().items() if issubclass(each, PerTaskMethod)]


@pytest.fixture
def start() -> dict[str, Tensor]:
    """Weights in float64, with a block's attention and MLP, which some methods ask for."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "blocks.0.attn.qkv.weight": (6, 4),
        "blocks.0.mlp.fc1.weight": (5, 4),
        "blocks.0.mlp.fc1.bias": (5,),
        "blocks.1.mlp.fc1.weight": (5, 4),
    }
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }


@pytest.fixture
def experts(start: dict[str, Tensor]) -> States:
    generator = torch.Generator().manual_seed(1)
    return {
        task: {
            name: tensor + torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            for name, tensor in start.items()
        }
        for task in ("mnist", "svhn")
    }


def bank_of(start: dict[str, Tensor], experts: States) -> TaskVectorBank:
    return TaskVectorBank.from_state_dicts(start, experts, dtype=torch.float64)


@pytest.mark.parametrize("name", DATA_FREE)
def test_function_method_and_one_line_are_one(
    name: str, start: dict[str, Tensor], experts: States
) -> None:
    bank = bank_of(start, experts)
    made = method_named(name)
    assert isinstance(made, DataFreeMethod)
    expected = made.merge(bank)
    function: Callable[..., dict[str, Tensor]] = getattr(package, name)
    merged = merge(experts, name, pretrained=start, dtype=torch.float64)
    for state in (function(bank), merged):
        assert list(state) == list(expected)
        for layer, tensor in expected.items():
            assert tensor.dtype == torch.float64
            assert torch.equal(state[layer], tensor), layer


def test_settings_reach_the_method(start: dict[str, Tensor], experts: States) -> None:
    """TIES of one expert, all entries kept, at scale 1 is that expert; it computes in float32."""
    alone = {"mnist": experts["mnist"]}
    settings: dict[str, Any] = {"density": 1.0, "scale": 1.0}
    merged = merge(alone, "ties", pretrained=start, dtype=torch.float64, **settings)
    for state in (merged, ties(bank_of(start, alone), **settings)):
        torch.testing.assert_close(state, experts["mnist"], rtol=1e-5, atol=1e-6)
    mean = {name: (experts["mnist"][name] + experts["svhn"][name]) / 2 for name in start}
    merged = merge(experts, "simple_average", pretrained=start, dtype=torch.float64)
    for state in (merged, simple_average(bank_of(start, experts))):
        torch.testing.assert_close(state, mean, rtol=1e-12, atol=1e-12)


def test_a_method_with_a_model_per_task_is_a_function_too(
    start: dict[str, Tensor], experts: States
) -> None:
    models = emr(bank_of(start, experts))
    assert list(models) == list(experts)
    assert models["mnist"].keys() == start.keys()


def test_every_function_says_what_it_takes_and_is_known_to_type_checkers() -> None:
    for name in (*DATA_FREE, *PER_TASK):
        function = getattr(package, name)
        assert function.__doc__ == methods()[name].__doc__
        own = list(inspect.signature(methods()[name]).parameters)
        assert list(inspect.signature(function).parameters) == ["bank", *own]
    source = inspect.getsource(package)
    missing = [name for name in (*DATA_FREE, *PER_TASK) if f"\n    {name}: " not in source]
    assert not missing, f"declare {', '.join(missing)} in merging/methods/__init__.py"


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("tsvm", {}, r"^method=tsvm: choose one of ace, .*, wudi; did you mean tsv_m\?$"),
        ("TIES", {}, r"did you mean ties\?$"),
        ("fisher", {}, r"^method=fisher needs data: choose one of ace, "),
        ("wemoe", {}, r"^method=wemoe needs data: "),
        ("emr", {}, r"^method=emr gives every task a model of its own: choose one of ace, "),
        ("ties", {"densty": 0.1}, r"^ties\.densty: .* density, scale; did you mean density\?$"),
        ("ties", {"density": 2}, r"^ties\.density=2: must be above 0 and at most 1$"),
    ],
)
def test_a_mistake_ends_in_one_line_before_any_weight_is_read(
    method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(MergingError, match=message) as refused:
        merge({}, method, pretrained={}, **settings)
    assert "\n" not in str(refused.value)


def test_weights_that_do_not_fit_are_named(start: dict[str, Tensor], experts: States) -> None:
    del experts["svhn"]["blocks.0.mlp.fc1.bias"]
    with pytest.raises(MergingError, match=r"expert svhn .*fc1\.bias.*missing"):
        merge(experts, "ties", pretrained=start)


def test_it_is_reachable_from_the_top() -> None:
    assert statsmerging.merge is merge
