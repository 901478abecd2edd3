"""Invariances that every merging method keeps, on small random experts.

>>> from statsmerging.merging.methods import check_method, method_named
>>> check_method(method_named("ties"))

The tests of this project run them for all of its methods; an author runs them for a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import torch
from torch import Tensor

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.kernels import LONG
from statsmerging.merging.methods.base import (
    DataFreeMethod,
    Evidence,
    EvidenceMethod,
    Method,
    PerTaskMethod,
)

TASKS = ("mnist", "svhn", "cars")

#: Every kind of tensor: matrix, convolution, vector, token.
SHAPES = {"linear": (7, 12), "convolution": (6, 3, 2, 2), "bias": (6,), "token": (1, 5, 4)}

States = Mapping[str, Mapping[str, Tensor]]


def check_method(method: Method) -> None:
    """Run every check of ``CHECKS`` that applies to this kind of method.

    A method that trains something needs data to run: only its declaration is checked, when its
    class is defined.

    Raises:
        MergingError: names the invariance that does not hold; ``method`` is a class.
    """
    if isinstance(method, type):
        raise MergingError(f"give check_method an instance: {method.__name__}()")
    for check in CHECKS:
        check(method)


def random_state(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Gaussian entries times ``scale`` in the shapes of ``SHAPES``."""
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def small_pretrained() -> dict[str, Tensor]:
    """θ₀ with every kind of tensor, and a counter that is not merged."""
    return {**random_state(0), "counter": torch.tensor(3)}


def small_experts() -> dict[str, dict[str, Tensor]]:
    """Three experts whose task vectors are Gaussian, with correlations and different sizes."""
    pretrained, shared = small_pretrained(), random_state(1, 0.05)
    return {
        task: {
            "counter": pretrained["counter"] + 1,
            **{
                name: pretrained[name] + shared[name] + change
                for name, change in random_state(2 + k, 0.05 * (1 + k)).items()
            },
        }
        for k, task in enumerate(TASKS)
    }


def small_evidence(needs: str) -> Evidence:
    """Gram matrices of both matrices (``activations``), or Fisher diagonals (``gradients``)."""
    generator = torch.Generator().manual_seed(30)
    evidence: dict[str, dict[str, Tensor]] = {}
    for k, task in enumerate(TASKS):
        if needs == "gradients":
            squares = {name: x.square() for name, x in random_state(20 + k, 10.0**-k).items()}
            evidence[task] = {name: x for name, x in squares.items() if name != "token"}
        else:
            inputs = {
                name: torch.randn(40, 12, generator=generator) for name in ("linear", "convolution")
            }
            evidence[task] = {name: x.mT @ x / len(x) for name, x in inputs.items()}
    return evidence


def merged_by(method: Method, bank: TaskVectorBank) -> dict[str, Tensor] | None:
    """The merged state dict, with ``small_evidence`` if it is needed; ``None`` for other kinds."""
    if isinstance(method, EvidenceMethod):
        return method.merge(bank, small_evidence(method.needs))
    return method.merge(bank) if isinstance(method, DataFreeMethod) else None


def result_is_a_full_state_dict(method: Method) -> None:
    """All tensors of θ₀ in their shapes and types, finite, without a gradient."""
    pretrained = small_pretrained()
    bank = _bank()
    merged = merged_by(method, bank)
    states = {} if merged is None else {"merged": merged}
    if isinstance(method, PerTaskMethod):
        states = dict(method.merge(bank))
        _require(method, tuple(states) == TASKS, "give one model for each task, in their order")
    for state in states.values():
        _require(method, state.keys() == pretrained.keys(), "give all tensors and no others")
        for name, start in pretrained.items():
            same = state[name].shape == start.shape and state[name].dtype == start.dtype
            _require(method, same, f"keep shape and type of {name}")
            _require(method, bool(torch.isfinite(state[name]).all()), f"give a finite {name}")
            _require(method, not state[name].requires_grad, f"give {name} without a gradient")
        _require(method, int(state["counter"]) == 3, "leave integer tensors as they are in θ₀")
        moved = any(not torch.equal(state[name], pretrained[name]) for name in bank.layers)
        _require(method, moved, "move the weights")


def nothing_else_changes(method: Method) -> None:
    """Neither the bank nor torch's global random numbers are changed."""
    bank, pretrained = _bank(), small_pretrained()
    stored = {name: rows.clone() for name, rows in bank.vectors.items()}
    before = torch.get_rng_state()
    merged_by(method, bank)
    for name in bank.layers:
        same = torch.equal(bank.vectors[name], stored[name])
        same = same and torch.equal(bank.pretrained[name], pretrained[name])
        _require(method, same, f"leave the bank's {name} as it is")
    same = torch.equal(torch.get_rng_state(), before)
    _require(method, same, "leave torch's global random numbers alone")


def the_same_bits_every_time(method: Method) -> None:
    """The result does not depend on torch's global random numbers."""
    first, second = merged_by(method, _bank()), None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        second = merged_by(method, _bank())
    if first is not None and second is not None:
        same = all(torch.equal(first[name], second[name]) for name in first)
        _require(method, same, "give the same bits every time")


def order_of_experts_does_not_matter(method: Method) -> None:
    """Up to rounding."""
    experts = small_experts()
    shuffled = {task: experts[task] for task in reversed(TASKS)}
    _compare(method, _bank(shuffled), _bank(), "not depend on the order of the experts")


def copies_of_an_expert_give_that_expert(method: Method) -> None:
    """With the parameters of ``Method.recovering``, for one copy and for three."""
    for tasks in (TASKS[:1], TASKS):
        parameters = method.recovering(len(tasks))
        if parameters is None:
            continue
        recovering = replace(method, **parameters)
        bank = _bank(dict.fromkeys(tasks, small_experts()[tasks[0]]))
        merged = merged_by(recovering, bank)
        if merged is not None:
            claim = f"give an expert back that is there {len(tasks)} times, with {parameters}"
            _require_close(method, merged, bank.expert(tasks[0]), claim)


def a_grid_is_of_a_parameter(method: Method) -> None:
    """``tunable`` names a parameter, and all its values are valid ones."""
    grid = method.tunable
    if grid is None:
        return
    names = [item.name for item in fields(method)]
    known = ", ".join(names) or "none"
    _require(
        method,
        grid.parameter in names,
        f"have a grid of a parameter ({known}), not of {grid.parameter}",
    )
    for value in grid.values:
        wanted = method.complaint(grid.parameter, value)
        _require(
            method, wanted is None, f"have valid values in its grid: {value:g} is not {wanted}"
        )


def scale_is_linear(method: Method) -> None:
    """A parameter ``scale`` is a factor on the update; with 0 the result is θ₀."""
    if "scale" not in {item.name for item in fields(method)}:
        return
    bank = _bank()
    scaled = [replace(method, **{"scale": scale}) for scale in (0.0, 0.4, 0.8)]
    none, half, full = (merged_by(each, bank) for each in scaled)
    if none is None or half is None or full is None:
        return
    for layer in bank.layers:
        start = bank.pretrained[layer]
        _require(method, torch.equal(none[layer], start), "give θ₀ with scale=0")
        twice = 2 * (half[layer] - none[layer])
        linear = torch.allclose(full[layer] - none[layer], twice, rtol=0, atol=1e-5)
        _require(method, linear, f"be linear in scale on {layer}")


def a_bfloat16_bank_is_converted_before_any_arithmetic(method: Method) -> None:
    """Task vectors in bfloat16 are rounded once, when they are stored, and not again."""
    experts, bank = small_experts(), _bank()
    short = TaskVectorBank.from_state_dicts(small_pretrained(), experts, dtype=torch.bfloat16)
    rows = {name: vectors.float() for name, vectors in short.vectors.items()}
    rounded = TaskVectorBank(bank.tasks, bank.pretrained, rows, bank.kept)
    merged, expected = merged_by(method, short), merged_by(method, rounded)
    full = merged_by(method, bank)
    if merged is None or expected is None or full is None:
        return
    claim = "convert a bfloat16 bank before any arithmetic"
    _require_close(method, merged, expected, claim, atol=1e-6)
    # Rounding to 8 bits moves the update by about 1 %; values at a threshold may fall either way,
    # and a method that rotates the weights spreads each of them over a row or column.
    apart = entries = 0
    for name in bank.layers:
        update = full[name] - bank.pretrained[name]
        typical = update.square().mean().sqrt()
        apart += int(((merged[name] - full[name]).abs() > 0.05 * typical).sum())
        entries += update.numel()
    _require(method, apart < 0.2 * entries, "give nearly the same from a bfloat16 bank")


def weights_in_half_precision_stay_so(method: Method) -> None:
    """The result has θ₀'s precision, and is computed in a finer one."""

    def half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {n: v.half() if v.is_floating_point() else v for n, v in state.items()}

    bank = _bank()
    halved = TaskVectorBank.from_state_dicts(
        half(small_pretrained()), {task: half(state) for task, state in small_experts().items()}
    )
    merged, full = merged_by(method, halved), merged_by(method, bank)
    if merged is None or full is None:
        return
    stays = all(merged[name].dtype == torch.float16 for name in SHAPES)
    _require(method, stays, "keep weights in half precision")
    moved = sum(float((merged[name] - full[name]).square().sum()) for name in bank.layers)
    size = sum(float(full[name].square().sum()) for name in bank.layers)
    _require(method, moved < 0.01**2 * size, "compute half-precision weights in a finer one")


def rows_of_long_layers_may_lie_apart(method: Method) -> None:
    """Rows of long layers do not touch each other in a bank, and no method relies on that."""
    if not isinstance(method, DataFreeMethod):
        return
    generator = torch.Generator().manual_seed(0)
    start = {"long": torch.randn(256, LONG // 256, generator=generator)}
    states = {
        task: {"long": start["long"] + 0.05 * torch.randn(start["long"].shape, generator=generator)}
        for task in TASKS
    }
    apart = TaskVectorBank.from_state_dicts(start, states)
    rows = {name: vectors.contiguous() for name, vectors in apart.vectors.items()}
    touching = TaskVectorBank(TASKS, start, rows, {})
    same = torch.allclose(method.merge(apart)["long"], method.merge(touching)["long"], atol=1e-5)
    _require(method, same, "not depend on how a layer's rows lie in memory")


#: All checks; each takes a method and raises ``MergingError``.
CHECKS: tuple[Callable[[Method], None], ...] = (
    result_is_a_full_state_dict,
    nothing_else_changes,
    the_same_bits_every_time,
    order_of_experts_does_not_matter,
    copies_of_an_expert_give_that_expert,
    a_grid_is_of_a_parameter,
    scale_is_linear,
    a_bfloat16_bank_is_converted_before_any_arithmetic,
    weights_in_half_precision_stay_so,
    rows_of_long_layers_may_lie_apart,
)


def _bank(experts: States | None = None) -> TaskVectorBank:
    return TaskVectorBank.from_state_dicts(small_pretrained(), experts or small_experts())


def _compare(method: Method, first: TaskVectorBank, second: TaskVectorBank, claim: str) -> None:
    found, expected = merged_by(method, first), merged_by(method, second)
    if found is not None and expected is not None:
        _require_close(method, found, expected, claim)


def _require_close(
    method: Method,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    claim: str,
    atol: float = 1e-5,
) -> None:
    _require(method, found.keys() == expected.keys(), claim)
    for name, value in expected.items():
        close = torch.allclose(found[name], value.to(found[name].dtype), rtol=0, atol=atol)
        _require(method, close, f"{claim} ({name})")


def _require(method: Method, holds: bool, claim: str) -> None:
    if not holds:
        raise MergingError(f"method {method.name}: it must {claim}")
