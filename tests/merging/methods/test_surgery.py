"""Representation Surgery: what it can undo, and what it starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from statsmerging.merging import MergingError
from statsmerging.merging.methods.surgery import RepresentationSurgery, SurgeryModule, fit_surgery

SETTINGS: dict[str, Any] = {
    "rank": 4,
    "steps": 400,
    "learning_rate": 1e-2,
    "batch_size": 16,
    "seed": 0,
}


def features(count: int, seed: int) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


def distance(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().mean().item()


def test_untrained_it_is_the_identity() -> None:
    merged = features(20, 0)
    module = fit_surgery(merged, features(20, 1), **{**SETTINGS, "steps": 0})
    assert torch.equal(module(merged), merged)


def test_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    module = SurgeryModule(12, 4, generator).double()
    module.requires_grad_(False).up.uniform_(-1, 1, generator=generator)
    seen = features(1, 2).double()[0]
    hidden = [max(0.0, float(row @ seen)) for row in module.down]
    correction = [sum(u * h for u, h in zip(row, hidden, strict=True)) for row in module.up]
    expected = seen - torch.stack([torch.as_tensor(entry) for entry in correction])
    torch.testing.assert_close(module(seen[None])[0], expected)


def test_a_bias_of_its_own_kind_is_undone_on_new_images() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = SurgeryModule(12, 2, generator)
    with torch.no_grad():
        truth.up.uniform_(-2, 2, generator=generator)
        merged, new = features(2000, 4), features(500, 5)
        expert, expected = truth(merged), truth(new)
    module = fit_surgery(merged, expert, **{**SETTINGS, "steps": 1500})
    assert distance(module(new), expected) < 0.1 * distance(new, expected)


def test_one_step_of_adam_moves_each_entry_by_the_learning_rate() -> None:
    merged, expert = features(20, 0), features(20, 1)
    start = fit_surgery(merged, expert, **{**SETTINGS, "steps": 0})
    after = fit_surgery(merged, expert, **{**SETTINGS, "steps": 1})
    # W_up is zero, so no gradient reaches W_down in the first step.
    assert torch.equal(after.down, start.down)
    moved = (after.up - start.up).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), rtol=1e-3, atol=0)


def test_the_seed_decides_and_the_global_generator_does_not() -> None:
    merged, expert = features(50, 0), features(50, 1)
    state = torch.get_rng_state()
    first = fit_surgery(merged, expert, **SETTINGS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    again = fit_surgery(merged, expert, **SETTINGS)
    other = fit_surgery(merged, expert, **{**SETTINGS, "seed": 1})
    assert torch.equal(first.up, again.up)
    assert not torch.equal(first.up, other.up)


def test_features_made_in_inference_mode_can_be_learned_from() -> None:
    with torch.inference_mode():
        merged, expert = features(50, 0) * 1, features(50, 1) * 1
    assert fit_surgery(merged, expert, **SETTINGS).up.any()


def test_every_task_has_its_own_module() -> None:
    merged = {"mnist": features(60, 0), "svhn": features(40, 1)}
    experts = {"svhn": features(40, 2), "mnist": merged["mnist"] + 0.3}
    method = RepresentationSurgery(rank=3, steps=50)
    modules = method.fit(merged, experts)
    assert modules.keys() == merged.keys()
    for task, module in modules.items():
        alone = method.fit({task: merged[task]}, {task: experts[task]})[task]
        assert torch.equal(module.up, alone.up)
        assert module.down.shape == (3, 12)
        assert not any(weight.requires_grad for weight in module.parameters())
        assert distance(module(merged[task]), experts[task]) < distance(merged[task], experts[task])


def test_features_that_do_not_fit_are_refused() -> None:
    one, other = {"mnist": features(10, 0)}, {"svhn": features(10, 0)}
    with pytest.raises(MergingError, match="same tasks from both models, got mnist and svhn"):
        RepresentationSurgery().fit(one, other)
    with pytest.raises(MergingError, match=r"shape \(10, 12\), the expert's \(9, 12\)"):
        RepresentationSurgery().fit(one, {"mnist": features(9, 0)})
