"""The learner: exact start, controls, links, gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from statsmerging.choices import (
    PREDICTING,
    Granularity,
    LearnerKind,
    Link,
    VectorCoefficients,
)
from statsmerging.merging import (
    LayerStatistics,
    MergingError,
    StatsMergeLearner,
    TaskVectorBank,
    layer_statistics,
)
from statsmerging.merging.methods import simple_average, task_arithmetic

KINDS: list[LearnerKind] = [kind for kind in get_args(LearnerKind) if kind != "free_per_layer"]


@pytest.fixture
def statistics(bank: TaskVectorBank) -> LayerStatistics:
    return layer_statistics(bank)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("granularity", ["layer_wise", "task_wise"])
@pytest.mark.parametrize("link", ["identity", "clamp"])
def test_start_is_task_arithmetic_to_the_last_bit(
    bank: TaskVectorBank,
    statistics: LayerStatistics,
    kind: LearnerKind,
    granularity: Granularity,
    link: Link,
) -> None:
    learner = StatsMergeLearner(statistics, granularity, kind=kind, link=link)
    coefficients = learner()
    assert coefficients.shape == ((6, 3) if granularity == "layer_wise" else (3,))
    merged, expected = bank.merge(coefficients), task_arithmetic(bank, scale=0.3)
    for name in expected:
        assert torch.equal(merged[name], expected[name])


def test_sigmoid_starts_at_the_same_value_and_softmax_at_the_average(
    statistics: LayerStatistics,
) -> None:
    sigmoid = StatsMergeLearner(statistics, link="sigmoid")()
    torch.testing.assert_close(sigmoid, torch.full((6, 3), 0.3))
    softmax = StatsMergeLearner(statistics, link="softmax")()
    torch.testing.assert_close(softmax, torch.full((6, 3), 1 / 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("granularity", ["layer_wise", "task_wise"])
@pytest.mark.parametrize("link", ["identity", "clamp", "sigmoid"])
def test_without_an_anchor_the_start_is_the_average(
    bank: TaskVectorBank,
    statistics: LayerStatistics,
    kind: LearnerKind,
    granularity: Granularity,
    link: Link,
) -> None:
    learner = StatsMergeLearner(statistics, granularity, kind=kind, link=link, anchor="none")
    torch.testing.assert_close(learner(), torch.full_like(learner(), 1 / 3))
    torch.testing.assert_close(bank.merge(learner(), "none"), simple_average(bank))
    own = StatsMergeLearner(statistics, granularity, kind=kind, link=link, start=0.5)
    torch.testing.assert_close(own(), torch.full_like(own(), 0.5))
    if learner.predicts:  # two other experts, whose average it is then
        pair = replace(statistics, values=statistics.values[:, :2], tasks=statistics.tasks[:2])
        torch.testing.assert_close(learner.predict(pair).unique(), torch.tensor([0.5]))


@pytest.mark.parametrize(("link", "start"), [("softmax", 0.5), ("sigmoid", 1.0), ("clamp", 1.1)])
def test_a_start_that_the_link_does_not_reach_is_refused(
    statistics: LayerStatistics, link: Link, start: float
) -> None:
    with pytest.raises(MergingError, match=f"start={start:g}: link={link}"):
        StatsMergeLearner(statistics, link=link, start=start)


@pytest.mark.parametrize("granularity", ["layer_wise", "task_wise"])
def test_clamped_coefficients_do_not_leave_0_and_1(
    statistics: LayerStatistics, granularity: Granularity
) -> None:
    """AdaMerging's table with its released clamp: at an end a coefficient stops."""
    learner = StatsMergeLearner(statistics, granularity, kind="free", link="clamp")
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    directions = torch.ones_like(learner())
    directions[..., 1] = -1
    (learner() * directions).sum().backward()
    optimizer.step()
    expected = torch.where(directions > 0, 0.0, 1.0)  # 0.3 − 1 and 0.3 + 1, clamped
    torch.testing.assert_close(learner(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(statistics: LayerStatistics, kind: LearnerKind) -> None:
    learner = StatsMergeLearner(statistics, kind=kind)
    target = torch.linspace(0, 1, 18).view(6, 3)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = (learner() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    distinct = len(torch.unique(learner().detach().round(decimals=5)))
    # Blind to its input, the control gives every layer and task one coefficient.
    assert (distinct == 1) == (kind == "constant_input")


def test_shared_learner_follows_a_permutation_of_experts(statistics: LayerStatistics) -> None:
    order = [2, 0, 1]
    permuted = LayerStatistics(
        statistics.values[:, order],
        statistics.columns,
        statistics.layers,
        tuple(statistics.tasks[i] for i in order),
    )
    learners = []
    for item in (statistics, permuted):
        learner = StatsMergeLearner(item, generator=torch.Generator().manual_seed(0))
        torch.nn.init.ones_(learner.network.output_weight)  # type: ignore[arg-type]
        learners.append(learner)
    torch.testing.assert_close(learners[0]()[:, order], learners[1]())


def test_same_generator_seed_gives_the_same_learner(statistics: LayerStatistics) -> None:
    first, second = (
        StatsMergeLearner(statistics, generator=torch.Generator().manual_seed(4)) for _ in range(2)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_unknown_choices_name_the_valid_ones(statistics: LayerStatistics) -> None:
    with pytest.raises(MergingError, match="granularity=row_wise: choose one of layer_wise, task"):
        StatsMergeLearner(statistics, "row_wise")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="choose one of shared, per_layer, linear, shared_and"):
        StatsMergeLearner(statistics, kind="big")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="standardise=foo: choose one of global, per_layer"):
        StatsMergeLearner(statistics, standardise="foo")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="link=soft: choose one of identity, softmax"):
        StatsMergeLearner(statistics, link="soft")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="anchor=pretrain: choose one of pretrained, none"):
        StatsMergeLearner(statistics, anchor="pretrain")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="hidden=0"):
        StatsMergeLearner(statistics, hidden=0)


def randomise(learner: StatsMergeLearner) -> None:
    """As if it had learned something."""
    for number, weight in enumerate(learner.parameters()):
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(number))


def test_prediction_for_the_same_experts_is_what_was_learned(statistics: LayerStatistics) -> None:
    for kind in PREDICTING:
        learner = StatsMergeLearner(statistics, kind=kind)
        randomise(learner)
        torch.testing.assert_close(learner.predict(statistics), learner())


def test_prediction_for_other_experts_follows_their_statistics(
    statistics: LayerStatistics,
) -> None:
    """Experts in another order get their own coefficients; two experts get two."""
    learner = StatsMergeLearner(statistics)
    randomise(learner)
    turned = replace(statistics, values=statistics.values.flip(1))
    torch.testing.assert_close(learner.predict(turned), learner().flip(1))
    pair = replace(statistics, values=statistics.values[:, :2], tasks=statistics.tasks[:2])
    assert learner.predict(pair).shape == (6, 2)
    assert StatsMergeLearner(statistics, "task_wise").predict(pair).shape == (2,)


def test_a_table_predicts_nothing(statistics: LayerStatistics) -> None:
    with pytest.raises(MergingError, match="no coefficients for other experts"):
        StatsMergeLearner(statistics, kind="free").predict(statistics)


def test_a_prediction_from_other_inputs_is_refused(statistics: LayerStatistics) -> None:
    columns = ("mean", "variance", "magnitude", "cosine", *statistics.columns[4:])
    other = replace(statistics, columns=columns)
    with pytest.raises(MergingError, match=r"knows the statistics .*, not mean, .*cosine"):
        StatsMergeLearner(statistics).predict(other)
    fewer = replace(statistics, values=statistics.values[1:], layers=statistics.layers[1:])
    with pytest.raises(MergingError, match=statistics.layers[0]):
        StatsMergeLearner(statistics, kind="per_layer").predict(fewer)
    assert StatsMergeLearner(statistics).predict(fewer).shape == (5, 3)


def trained(learner: StatsMergeLearner) -> tuple[Tensor, Tensor]:
    """Coefficients before and after some steps towards λ = 2."""
    before = learner().detach()
    optimiser = torch.optim.Adam(learner.parameters(), lr=0.05)
    for _ in range(5):
        optimiser.zero_grad()
        (learner() - 2).square().sum().backward()
        optimiser.step()
    return before, learner().detach()


@pytest.mark.parametrize("vectors", ["learned", "table", "mean", "only"])
def test_layers_that_are_no_matrices_can_be_set_apart(
    statistics: LayerStatistics, vectors: VectorCoefficients
) -> None:
    is_vector = torch.tensor([name in statistics.vectors for name in statistics.layers])
    assert {"normalisation.weight", "projection.bias"} <= statistics.vectors
    assert "projection.weight" not in statistics.vectors
    learner = StatsMergeLearner(statistics, vectors=vectors)
    before, after = trained(learner)
    moved = (before != after).all(dim=1)
    assert torch.equal(moved[is_vector], torch.full_like(moved[is_vector], vectors != "mean"))
    assert torch.equal(moved[~is_vector], torch.full_like(moved[~is_vector], vectors != "only"))
    assert (after[is_vector] == 1 / 3).all() == (vectors == "mean")
    if vectors == "table":
        with pytest.raises(MergingError, match="vectors=table: a table has no coefficients"):
            learner.predict(statistics)
    else:
        torch.testing.assert_close(learner.predict(statistics), after)


def test_the_scale_of_vectors_is_a_factor_on_their_output(statistics: LayerStatistics) -> None:
    is_vector = torch.tensor([name in statistics.vectors for name in statistics.layers])
    plain = StatsMergeLearner(statistics, kind="free")
    scaled = StatsMergeLearner(statistics, kind="free", vector_scale=30)
    with torch.no_grad():
        for learner in (plain, scaled):
            next(learner.parameters()).fill_(0.01)
    expected = torch.where(is_vector.unsqueeze(1), 0.3 + 30 * 0.01, plain())
    torch.testing.assert_close(scaled(), expected)
