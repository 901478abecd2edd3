"""What holds for every method that gives one model, and for which settings of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from statsmerging.merging import TaskVectorBank
from statsmerging.merging.kernels import LONG
from statsmerging.merging.methods import (
    DataFreeMethod,
    Evidence,
    EvidenceMethod,
    Method,
    method_named,
    methods,
)
from tests.merging.methods.conftest import SHAPES, TASKS

States = dict[str, dict[str, Tensor]]
Merge = Callable[[Method, TaskVectorBank], dict[str, Tensor]]

#: Methods of other folders may be registered as well; they need more than a bank and evidence.
ALL = [
    method_named(name)
    for name, kind in methods().items()
    if issubclass(kind, DataFreeMethod | EvidenceMethod)
]
NAMES = {method.name for method in ALL}

#: Settings under which one expert comes back.
RETURNS_THE_ONE_EXPERT = [
    method_named("breadcrumbs", density=1.0, outliers=0.0, scale=1.0),
    method_named("consensus", agreement=1, scale=1.0),
    method_named("dare_task_arithmetic", drop_rate=0.0, scale=1.0),
    method_named("dare_ties", drop_rate=0.0, density=1.0),
    method_named("fisher"),
    method_named("model_stock"),
    method_named("regmean"),
    method_named("simple_average"),
    method_named("task_arithmetic", scale=1.0),
    method_named("ties", density=1.0),
    method_named("tsv_m"),
    method_named("wudi", all_tensors=True),
]
#: Iso flattens the spectrum of a single task matrix too; PCB drops the lowest score even at
#: ratio 1 and clips magnitudes.
CHANGES_THE_ONE_EXPERT = {"iso_c", "iso_cts", "pcb"}

#: Settings under which copies of one expert give that expert.
RETURNS_THE_COMMON_EXPERT = [
    method_named("breadcrumbs", density=1.0, outliers=0.0, scale=1 / 3),
    method_named("consensus", scale=1 / 3),
    method_named("dare_task_arithmetic", drop_rate=0.0, scale=1 / 3),
    method_named("dare_ties", drop_rate=0.0, density=1.0),
    method_named("fisher"),
    method_named("model_stock"),
    method_named("regmean"),
    method_named("simple_average"),
    method_named("task_arithmetic", scale=1 / 3),
    method_named("ties", density=1.0),
]
#: The singular vectors of copies cannot be made orthogonal (TSV-M); WUDI starts at the sum and
#: takes a fixed number of steps.
CHANGES_THE_COMMON_EXPERT = CHANGES_THE_ONE_EXPERT | {"tsv_m", "wudi"}


def named(method: Method) -> str:
    return method.name


@pytest.fixture
def merge(fishers: Evidence, grams: Evidence) -> Merge:
    """Run any method, with the evidence it needs."""

    def run(method: Method, bank: TaskVectorBank) -> dict[str, Tensor]:
        if isinstance(method, EvidenceMethod):
            return method.merge(bank, fishers if method.needs == "gradients" else grams)
        assert isinstance(method, DataFreeMethod)
        assert method.needs == "nothing"
        return method.merge(bank)

    return run


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol)


def test_the_lists_above_cover_every_method() -> None:
    assert {m.name for m in RETURNS_THE_ONE_EXPERT} | CHANGES_THE_ONE_EXPERT == NAMES
    assert {m.name for m in RETURNS_THE_COMMON_EXPERT} | CHANGES_THE_COMMON_EXPERT == NAMES


@pytest.mark.parametrize("method", ALL, ids=named)
def test_result_is_a_full_state_dict_and_nothing_else_changes(
    method: Method, merge: Merge, bank: TaskVectorBank, pretrained: dict[str, Tensor]
) -> None:
    stored = {name: rows.clone() for name, rows in bank.vectors.items()}
    random_state = torch.get_rng_state()
    merged = merge(method, bank)
    assert merged.keys() == pretrained.keys()
    for name, start in pretrained.items():
        assert merged[name].shape == start.shape
        assert merged[name].dtype == start.dtype
        assert torch.isfinite(merged[name]).all()
    assert merged["counter"] == 3
    for name in bank.layers:
        assert torch.equal(bank.pretrained[name], pretrained[name])
        assert torch.equal(bank.vectors[name], stored[name])
        assert not merged[name].requires_grad
    assert any(not torch.equal(merged[name], pretrained[name]) for name in bank.layers)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("method", ALL, ids=named)
def test_the_same_bits_every_time(method: Method, merge: Merge, bank: TaskVectorBank) -> None:
    torch.manual_seed(1)
    first = merge(method, bank)
    torch.manual_seed(2)
    second = merge(method, bank)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ALL, ids=named)
def test_order_of_experts_does_not_matter(
    method: Method,
    merge: Merge,
    bank: TaskVectorBank,
    pretrained: dict[str, Tensor],
    experts: States,
) -> None:
    shuffled = TaskVectorBank.from_state_dicts(
        pretrained, {task: experts[task] for task in ("cars", "mnist", "svhn")}
    )
    assert_same(merge(method, shuffled), merge(method, bank), atol=1e-5)


@pytest.mark.parametrize("method", RETURNS_THE_ONE_EXPERT, ids=named)
def test_one_expert_comes_back(
    method: Method, merge: Merge, pretrained: dict[str, Tensor], experts: States
) -> None:
    bank = TaskVectorBank.from_state_dicts(pretrained, {"svhn": experts["svhn"]})
    assert_same(merge(method, bank), bank.expert("svhn"), atol=1e-5)


@pytest.mark.parametrize("method", RETURNS_THE_COMMON_EXPERT, ids=named)
def test_copies_of_an_expert_give_that_expert(
    method: Method, merge: Merge, pretrained: dict[str, Tensor], experts: States
) -> None:
    bank = TaskVectorBank.from_state_dicts(pretrained, dict.fromkeys(TASKS, experts["svhn"]))
    assert_same(merge(method, bank), bank.expert("svhn"), atol=1e-5)


@pytest.mark.parametrize(
    "name", [m.name for m in ALL if "scale" in {item.name for item in fields(m)}]
)
def test_scale_is_linear_and_zero_is_the_pretrained_model(
    name: str, merge: Merge, bank: TaskVectorBank, pretrained: dict[str, Tensor]
) -> None:
    none, half, full = (merge(method_named(name, scale=s), bank) for s in (0.0, 0.4, 0.8))
    for layer in bank.layers:
        assert torch.equal(none[layer], pretrained[layer])
        torch.testing.assert_close(
            full[layer] - none[layer], 2 * (half[layer] - none[layer]), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("method", ALL, ids=named)
def test_a_bfloat16_bank_is_converted_before_any_arithmetic(
    method: Method,
    merge: Merge,
    bank: TaskVectorBank,
    pretrained: dict[str, Tensor],
    experts: States,
) -> None:
    short = TaskVectorBank.from_state_dicts(pretrained, experts, dtype=torch.bfloat16)
    rounded = TaskVectorBank(
        bank.tasks,
        bank.pretrained,
        {name: rows.float() for name, rows in short.vectors.items()},
        bank.kept,
    )
    merged = merge(method, short)
    assert_same(merged, merge(method, rounded), atol=1e-6)
    # Rounding to 8 bits moves the update by about 1 %; entries at a threshold may fall either way.
    full = merge(method, bank)
    moved = sum((merged[name] - full[name]).square().sum() for name in bank.layers)
    size = sum((full[name] - pretrained[name]).square().sum() for name in bank.layers)
    assert moved < 0.05**2 * size


@pytest.mark.parametrize("method", ALL, ids=named)
def test_weights_in_half_precision_stay_so(
    method: Method,
    merge: Merge,
    bank: TaskVectorBank,
    pretrained: dict[str, Tensor],
    experts: States,
) -> None:
    def half(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {n: v.half() if v.is_floating_point() else v for n, v in state.items()}

    halved = TaskVectorBank.from_state_dicts(
        half(pretrained), {task: half(expert) for task, expert in experts.items()}
    )
    merged, full = merge(method, halved), merge(method, bank)
    for name in SHAPES:
        assert merged[name].dtype == torch.float16
    moved = sum((merged[name] - full[name]).square().sum() for name in bank.layers)
    size = sum(full[name].square().sum() for name in bank.layers)
    assert moved < 0.01**2 * size


@pytest.mark.parametrize(
    "method",
    [method for method in ALL if isinstance(method, DataFreeMethod)],
    ids=lambda method: method.name,
)
def test_a_long_layer_is_merged_the_same_however_its_rows_lie(method: DataFreeMethod) -> None:
    """Rows of long layers do not touch each other in a bank: no method may rely on that."""
    generator = torch.Generator().manual_seed(0)
    start = {"long": torch.randn(256, LONG // 256, generator=generator)}
    states = {
        task: {"long": start["long"] + 0.05 * torch.randn(start["long"].shape, generator=generator)}
        for task in TASKS
    }
    apart = TaskVectorBank.from_state_dicts(start, states)
    assert not apart.vectors["long"].is_contiguous()
    touching = {name: rows.contiguous() for name, rows in apart.vectors.items()}
    found = method.merge(apart)["long"]
    expected = method.merge(TaskVectorBank(TASKS, start, touching, {}))["long"]
    torch.testing.assert_close(found, expected)
