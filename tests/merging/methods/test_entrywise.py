"""Methods that work entry by entry, against their formulas on flat float64 vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from statsmerging.merging import MergingError, TaskVectorBank
from statsmerging.merging.methods import DataFreeMethod
from statsmerging.merging.methods.breadcrumbs import Breadcrumbs
from statsmerging.merging.methods.checks import SHAPES, TASKS, random_state
from statsmerging.merging.methods.consensus import Consensus
from statsmerging.merging.methods.dare import DareTaskArithmetic, DareTies, thinned_rows
from statsmerging.merging.methods.lines import LiNeS, depths_of
from statsmerging.merging.methods.meta_gpt import MetaGpt
from statsmerging.merging.methods.model_stock import ModelStock
from statsmerging.merging.methods.pcb import Pcb
from statsmerging.merging.methods.ties import Ties, trimmed_bank
from tests.merging.methods.reference import (
    flat_task_vectors,
    flat_update,
    task_vectors,
    ties_reference,
    updates,
)


@pytest.mark.parametrize("density", [0.01, 0.2, 0.7, 1.0])
def test_ties(bank: TaskVectorBank, density: float) -> None:
    found = flat_update(bank, Ties(density, scale=0.7).merge(bank))
    expected = ties_reference(flat_task_vectors(bank), density, 0.7)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.count_nonzero(expected) > 0


def test_ties_trims_over_the_whole_model_not_per_layer() -> None:
    start = {"large": torch.zeros(4), "small": torch.zeros(4)}
    expert = {"large": torch.tensor([4.0, -5.0, 6.0, 7.0]), "small": torch.full((4,), 0.1)}
    bank = TaskVectorBank.from_state_dicts(start, {"only": expert})
    merged = Ties(density=0.5).merge(bank)
    assert torch.equal(merged["large"], expert["large"])
    assert torch.equal(merged["small"], start["small"])


@pytest.mark.parametrize("method", [Ties(density=0.5), Pcb(ratio=0.5)], ids=lambda m: m.name)
def test_shares_count_tensors_that_some_expert_changed(
    pretrained: dict[str, Tensor], experts: dict[str, dict[str, Tensor]], method: DataFreeMethod
) -> None:
    """A frozen tensor as large as the rest, such as a text tower, takes no part in the share."""
    frozen = {"frozen": torch.ones(200)}
    bank = TaskVectorBank.from_state_dicts(pretrained, experts)
    beside = TaskVectorBank.from_state_dicts(
        pretrained | frozen, {task: state | frozen for task, state in experts.items()}
    )
    alone, merged = method.merge(bank), method.merge(beside)
    assert torch.equal(merged.pop("frozen"), frozen["frozen"])
    torch.testing.assert_close(merged, alone, rtol=0, atol=0)


def test_trimmed_task_vectors_are_known_as_exactly_as_whole_ones() -> None:
    """What rounding can have made depends on the experts' type, also after trimming."""
    start = {"weight": torch.linspace(-1, 1, 64).view(8, 8)}
    expert = {"weight": (start["weight"] + 0.1).bfloat16()}
    bank = TaskVectorBank.from_state_dicts(start, {"only": expert})
    assert trimmed_bank(bank, 0.5).rounding == {"weight": torch.finfo(torch.bfloat16).eps}


def test_an_entry_that_one_expert_changed_counts_for_all() -> None:
    """Of eight entries TIES keeps half of each task vector: also zeros of a tensor left alone."""
    start = {"first": torch.zeros(4), "second": torch.zeros(4)}
    whole = {"first": torch.tensor([1.0, 2, 3, 4]), "second": torch.tensor([5.0, 6, 7, 8])}
    part = {"first": torch.tensor([1.0, 2, 3, 4]), "second": torch.zeros(4)}
    bank = TaskVectorBank.from_state_dicts(start, {"whole": whole, "part": part})
    merged = Ties(density=0.5).merge(bank)
    assert torch.equal(merged["first"], part["first"])  # all four are half of eight
    assert torch.equal(merged["second"], whole["second"])


def test_dare_drops_the_stated_share_and_rescales_the_rest(bank: TaskVectorBank) -> None:
    rows = thinned_rows(bank, drop_rate=0.25, seed=7)
    dropped, total = 0, 0
    for name in bank.layers:
        thinned, full = rows(name), bank.vectors[name]
        stays = thinned != 0
        torch.testing.assert_close(thinned[stays], full[stays] / 0.75)
        dropped += int((~stays).sum())
        total += full.numel()
    # 3 · 182 draws with probability 0.25: within four standard deviations.
    assert abs(dropped / total - 0.25) < 4 * np.sqrt(0.25 * 0.75 / total)


def test_dare_is_unbiased(bank: TaskVectorBank) -> None:
    expected = 0.3 * flat_task_vectors(bank).sum(0)
    seeds = [flat_update(bank, DareTaskArithmetic(0.5, seed=s).merge(bank)) for s in range(300)]
    # One draw deviates by the size of the vector itself, the mean of 300 by a 17th.
    error = np.linalg.norm(np.mean(seeds, axis=0) - expected)
    assert error < 0.1 * np.linalg.norm(expected)
    assert np.linalg.norm(seeds[0] - expected) > 0.3 * np.linalg.norm(expected)


def test_dare_seeds_tasks_and_layers_are_independent(pretrained: dict[str, Tensor]) -> None:
    same = {name: value + 1 for name, value in pretrained.items()}
    bank = TaskVectorBank.from_state_dicts(
        {**pretrained, "twin": pretrained["linear"]},
        {task: {**same, "twin": same["linear"]} for task in TASKS},
    )
    rows = thinned_rows(bank, 0.5, seed=0)
    patterns = [*rows("linear"), *rows("twin"), *thinned_rows(bank, 0.5, seed=1)("linear")]
    for i, first in enumerate(patterns):
        for second in patterns[:i]:
            equal = ((first == 0) == (second == 0)).float().mean()
            assert 0.25 < equal < 0.75


def test_dare_ties_is_ties_of_the_thinned_vectors(bank: TaskVectorBank) -> None:
    rows = thinned_rows(bank, 0.4, seed=3)
    thinned = np.concatenate([rows(name).double().numpy() for name in bank.layers], axis=1)
    found = flat_update(bank, DareTies(0.4, density=0.3, scale=0.5, seed=3).merge(bank))
    np.testing.assert_allclose(found, ties_reference(thinned, 0.3, 0.5), atol=1e-6)


@pytest.mark.parametrize("agreement", [1, 2, 3])
@pytest.mark.parametrize("strictness", [0.0, 0.4, 1.5])
def test_consensus(bank: TaskVectorBank, agreement: int, strictness: float) -> None:
    vectors = flat_task_vectors(bank)
    expected = np.zeros(vectors.shape[1])
    for entry, column in enumerate(vectors.T):
        total = column.sum()
        masks = [abs(x) > strictness * abs(total - x) for x in column]
        expected[entry] = 0.6 * total if sum(masks) >= agreement else 0
    found = flat_update(bank, Consensus(strictness, agreement, scale=0.6).merge(bank))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_consensus_of_more_than_there_are_is_refused(bank: TaskVectorBank) -> None:
    with pytest.raises(MergingError, match=r"consensus\.agreement=4: must be at most .* 3"):
        Consensus(agreement=4).merge(bank)


@pytest.mark.parametrize(("density", "outliers"), [(0.15, 0.05), (0.5, 0.2), (0.9, 0.3), (1.0, 0)])
def test_breadcrumbs(bank: TaskVectorBank, density: float, outliers: float) -> None:
    expected = {}
    for name, vectors in task_vectors(bank).items():
        masked = vectors.reshape(len(vectors), -1).copy()
        for row in masked:
            size = len(row)
            order = np.argsort(-np.abs(row))
            removed = round(outliers * size)
            kept = order[removed : removed + max(1, round(density * size))]
            row[np.setdiff1d(order, kept)] = 0
        expected[name] = 0.4 * masked.sum(0).reshape(vectors.shape[1:])
    found = updates(bank, Breadcrumbs(density, outliers, scale=0.4).merge(bank))
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 1.0])
def test_pcb(bank: TaskVectorBank, ratio: float) -> None:
    vectors = flat_task_vectors(bank)
    tasks, size = vectors.shape
    outside = int(0.01 * size)
    clipped, normal = np.zeros_like(vectors), np.zeros_like(vectors)
    for k, row in enumerate(vectors):
        magnitudes = np.sort(np.abs(row))
        low, high = magnitudes[outside], magnitudes[size - 1 - outside]
        magnitude = np.clip(np.abs(row), low, high)
        clipped[k] = np.sign(row) * magnitude
        normal[k] = (magnitude - low) / (high - low)
    within = np.exp(tasks * normal**2)
    between = np.tanh(vectors * (np.sign(vectors) * normal).sum(0))
    scores = within * between
    for row in scores:
        lowest = np.sort(row)[size - round(ratio * size)]
        row[:] = (np.clip(row, lowest, None) - lowest) / (row.max() - lowest)
    expected = 1.3 * (scores * clipped).sum(0) / np.maximum(scores.sum(0), 1e-12)
    found = flat_update(bank, Pcb(ratio, scale=1.3).merge(bank))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert outside > 0


def test_pcb_does_not_overflow_with_many_tasks(pretrained: dict[str, Tensor]) -> None:
    experts = {
        f"task {k}": {
            "counter": pretrained["counter"],
            **{name: pretrained[name] + v for name, v in random_state(40 + k, 0.1).items()},
        }
        for k in range(100)
    }
    bank = TaskVectorBank.from_state_dicts(pretrained, experts)
    found = flat_update(bank, Pcb().merge(bank))
    assert np.isfinite(found).all()
    assert np.count_nonzero(found) > 0


def test_model_stock(bank: TaskVectorBank) -> None:
    found = updates(bank, ModelStock().merge(bank))
    for name, vectors in task_vectors(bank).items():
        flat = vectors.reshape(3, -1)
        cosines = [
            flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j])
            for i in range(3)
            for j in range(i)
        ]
        cosine = max(0.0, float(np.mean(cosines)))
        ratio = 3 * cosine / (1 + 2 * cosine)
        np.testing.assert_allclose(found[name], ratio * vectors.mean(0), atol=1e-6)


@pytest.mark.parametrize("second", [torch.tensor([0.0, 2.0]), torch.tensor([-1.0, 0.0])])
def test_model_stock_of_experts_that_share_nothing_stays_pretrained(second: Tensor) -> None:
    start = {"weight": torch.zeros(2)}
    experts = {"one": {"weight": torch.tensor([3.0, 0.0])}, "two": {"weight": second}}
    bank = TaskVectorBank.from_state_dicts(start, experts)
    assert torch.equal(ModelStock().merge(bank)["weight"], start["weight"])


def test_model_stock_of_a_tensor_one_expert_left_alone_is_finite() -> None:
    start = random_state(0)
    moved = {name: value + 1 for name, value in start.items()}
    bank = TaskVectorBank.from_state_dicts(start, {"one": start, "two": moved})
    merged = ModelStock().merge(bank)
    assert all(torch.equal(merged[name], start[name]) for name in SHAPES)


def test_meta_gpt_weighs_experts_by_their_squared_norms(bank: TaskVectorBank) -> None:
    vectors = flat_task_vectors(bank)
    squares = (vectors**2).sum(axis=1)
    expected = squares / squares.sum() @ vectors
    np.testing.assert_allclose(flat_update(bank, MetaGpt().merge(bank)), expected, atol=1e-6)


def test_meta_gpt_ignores_an_expert_that_did_not_move() -> None:
    start = {"weight": torch.zeros(4)}
    moved = {"weight": torch.tensor([1.0, -2.0, 3.0, 4.0])}
    bank = TaskVectorBank.from_state_dicts(start, {"mnist": moved, "svhn": start})
    assert torch.equal(MetaGpt().merge(bank)["weight"], moved["weight"])


def test_lines_rises_linearly_over_the_blocks() -> None:
    """Three blocks of two tensors; what lies outside of them has the coefficient of the first."""
    names = ["patch.weight", *(f"blocks.{b}.{part}" for b in range(3) for part in ("fc", "norm"))]
    start = {name: torch.zeros(5) for name in [*names, "norm.weight"]}
    generator = torch.Generator().manual_seed(0)
    experts = {
        task: {name: torch.randn(5, generator=generator) for name in start}
        for task in ("mnist", "svhn")
    }
    bank = TaskVectorBank.from_state_dicts(start, experts)
    merged = LiNeS(slope=0.4).merge(bank)
    scales = dict(zip(start, [0.5, 0.5, 0.5, 0.7, 0.7, 0.9, 0.9, 0.5], strict=True))
    for name, scale in scales.items():
        expected = scale * (experts["mnist"][name].double() + experts["svhn"][name].double())
        torch.testing.assert_close(merged[name].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "depths"),
    [
        (("a", "b", "c"), [0.0, 0.5, 1.0]),  # no blocks: the place in the network
        (("layer1.0.conv", "layer1.1.conv", "layer2.0.conv", "fc"), [0.0, 0.5, 1.0, 0.0]),
        (("transformer.resblocks.0.ln", "transformer.resblocks.10.ln"), [0.0, 1.0]),
        (("blocks.0.norm", "norm"), [0.0, 0.0]),
        (("only",), [0.0]),
    ],
)
def test_depth_of_a_layer_is_that_of_its_block(
    layers: tuple[str, ...], depths: list[float]
) -> None:
    assert depths_of(layers) == depths
