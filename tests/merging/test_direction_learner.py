"""The learner of singular directions: exact start, kinds, vectors, prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from statsmerging.choices import LearnerKind, VectorCoefficients
from statsmerging.merging import (
    Decomposition,
    DirectionLearner,
    DirectionStatistics,
    MergedModel,
    MergingError,
    SpectralBank,
    TaskVectorBank,
    direction_statistics,
    layer_statistics,
)
from statsmerging.merging.methods import task_arithmetic
from statsmerging.merging.methods.tsv_m import TsvM
from tests.small_models import TinyAttention, TinyBackbone, random_experts

KINDS: tuple[LearnerKind, ...] = get_args(LearnerKind)
TABLES: tuple[LearnerKind, ...] = ("free", "free_per_layer", "shared_and_free")
VECTORS: tuple[VectorCoefficients, ...] = get_args(VectorCoefficients)


def attention_bank(tasks: int = 3) -> TaskVectorBank:
    torch.manual_seed(0)
    pretrained = TinyAttention().state_dict()
    return TaskVectorBank.from_state_dicts(
        pretrained, random_experts(pretrained, tuple("abcdefghi"[:tasks]))
    )


@pytest.fixture(scope="module")
def statistics() -> DirectionStatistics:
    """Of three experts, two directions each in a matrix, with those of the layers beside them."""
    bank = attention_bank()
    directions = direction_statistics(SpectralBank.from_bank(bank, Decomposition(rank=2)))
    return directions.beside(layer_statistics(bank))


def randomise(learner: DirectionLearner) -> DirectionLearner:
    """As if it had learned something."""
    for number, weight in enumerate(learner.parameters()):
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(number))
    return learner


def subset(statistics: DirectionStatistics, tasks: list[int]) -> DirectionStatistics:
    """The statistics of some of the experts, as if there were no others."""
    kept = torch.isin(statistics.task, torch.tensor(tasks))
    number = torch.tensor([tasks.index(k) if k in tasks else -1 for k in range(3)])
    return replace(
        statistics,
        values=statistics.values[kept],
        present=statistics.present[kept],
        layer=statistics.layer[kept],
        task=number[statistics.task[kept]],
        whole=statistics.whole[kept],
        tasks=tuple(statistics.tasks[k] for k in tasks),
    )


# ---- the start -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("tasks", [1, 3, 9])
def test_the_start_is_tsv_m(kind: LearnerKind, vectors: VectorCoefficients, tasks: int) -> None:
    bank = attention_bank(tasks)
    spectral = SpectralBank.from_bank(bank)
    learner = DirectionLearner(direction_statistics(spectral), kind=kind, vectors=vectors)
    merged = spectral.merge(learner())
    for name, expected in TsvM(flatten_convolutions=True, scale=1.0).merge(bank).items():
        torch.testing.assert_close(merged[name], expected, rtol=0, atol=1e-6)


def test_the_start_is_tsv_m_with_every_kind_of_tensor(bank: TaskVectorBank) -> None:
    """A convolution, a normalisation and its running statistics."""
    spectral = SpectralBank.from_bank(bank)
    merged = spectral.merge(DirectionLearner(direction_statistics(spectral))())
    expected = TsvM(flatten_convolutions=True, scale=1.0).merge(bank)
    assert merged.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize(
    ("orthonormal", "start", "expected"),
    [(True, None, 1.0), (False, None, 0.3), (True, 0.7, 0.7), (False, 0.0, 0.0)],
)
def test_coefficients_before_the_first_step(
    statistics: DirectionStatistics,
    kind: LearnerKind,
    vectors: VectorCoefficients,
    orthonormal: bool,
    start: float | None,
    expected: float,
) -> None:
    chosen = replace(statistics, orthonormal=orthonormal)
    learner = DirectionLearner(
        chosen, kind=kind, vectors=vectors, start=start, scale=3.0, vector_scale=5.0
    )
    wanted = torch.full((len(statistics.values),), expected)
    wanted[statistics.whole] = 1 / 3
    assert torch.equal(learner(), wanted)


def test_raw_directions_of_full_rank_start_near_task_arithmetic() -> None:
    """It is task arithmetic on matrices, and the mean of the experts elsewhere."""
    bank = attention_bank()
    spectral = SpectralBank.from_bank(bank, Decomposition(rank=99, orthonormal=False))
    merged = spectral.merge(DirectionLearner(direction_statistics(spectral))())
    matrices, vectors = task_arithmetic(bank, scale=0.3), task_arithmetic(bank, scale=1 / 3)
    for name, start in bank.pretrained.items():
        expected = matrices if start.dim() > 1 else vectors
        torch.testing.assert_close(merged[name], expected[name], rtol=0, atol=1e-6)


# ---- kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vectors", VECTORS)
def test_number_of_parameters(statistics: DirectionStatistics, vectors: VectorCoefficients) -> None:
    count, features = statistics.values.shape
    layers, hidden = len(statistics.layers), 7
    network = features * hidden + hidden + hidden + 1
    expected = {
        "shared": network,
        "per_layer": layers * network,
        "linear": features + 1,
        "shared_and_free": network + count,
        "free": count,
        "free_per_layer": layers * 3,
        "constant_input": 1,
    }
    own = int(statistics.whole.sum()) if vectors == "table" else 0
    for kind in KINDS:
        learner = DirectionLearner(statistics, kind=kind, vectors=vectors, hidden=hidden)
        found = sum(weight.numel() for weight in learner.parameters())
        assert found == expected[kind] + own, kind


def trained(learner: DirectionLearner, target: Tensor, steps: int = 60) -> list[float]:
    """Losses of some steps towards target coefficients."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        loss = (learner() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_what_it_can_tell_apart(
    statistics: DirectionStatistics, kind: LearnerKind
) -> None:
    learner = DirectionLearner(statistics, kind=kind)
    start = learner().detach()
    target = torch.rand(len(start), generator=torch.Generator().manual_seed(0))
    losses = trained(learner, target)
    assert losses[-1] < losses[0]
    moved = learner().detach() - start
    assert (moved != 0).all()
    if kind == "constant_input":
        torch.testing.assert_close(moved / start, (moved / start)[:1].expand_as(moved))
    groups = statistics.layer * 3 + statistics.task
    of_matrices = groups[~statistics.whole].unique()
    spread = torch.stack([moved[groups == group].std() for group in of_matrices])
    assert (spread < 1e-6).all() == (kind in ("free_per_layer", "constant_input"))
    if kind == "free_per_layer":
        assert len(moved.unique()) == len(groups.unique())


def test_offsets_are_added_to_what_the_network_tells(statistics: DirectionStatistics) -> None:
    learner = randomise(DirectionLearner(statistics, kind="shared_and_free", scale=0.5))
    network = DirectionLearner(statistics, scale=0.5)
    network.load_state_dict(learner.state_dict(), strict=False)
    torch.testing.assert_close(learner(), network() + 0.5 * learner.offsets)


def test_a_linear_learner_is_linear(statistics: DirectionStatistics) -> None:
    learner = randomise(DirectionLearner(statistics, kind="linear"))
    design = torch.cat([learner.inputs, torch.ones(len(learner.inputs), 1)], dim=1).double()
    moved = (learner() - DirectionLearner(statistics)()).detach().double().unsqueeze(1)
    fitted = design @ torch.linalg.lstsq(design, moved, driver="gelsd").solution
    torch.testing.assert_close(fitted, moved, rtol=0, atol=1e-4)


def test_networks_per_layer_are_private(statistics: DirectionStatistics) -> None:
    """The gradient of a layer's coefficients reaches its own network alone."""
    learner = randomise(DirectionLearner(statistics, kind="per_layer"))
    learner()[statistics.layer == 2].sum().backward()
    for weight in learner.parameters():
        assert weight.grad is not None
        reached = weight.grad.flatten(1).any(dim=1)
        assert reached.tolist() == [number == 2 for number in range(len(statistics.layers))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors", VECTORS)
def test_only_the_learner_has_gradients(
    backbone: TinyBackbone, bank: TaskVectorBank, kind: LearnerKind, vectors: VectorCoefficients
) -> None:
    spectral = SpectralBank.from_bank(bank)
    learner = DirectionLearner(direction_statistics(spectral), kind=kind, vectors=vectors)
    student = MergedModel(backbone, spectral)
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = learner().detach()
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        student(images, learner()).square().sum().backward()
        optimizer.step()
    assert all(weight.grad is not None for weight in learner.parameters())
    assert all(weight.grad is None for weight in student.parameters())
    assert not any(
        part.requires_grad
        for directions in spectral.directions.values()
        for part in (directions.left, directions.values, directions.right)
    )
    whole = learner.statistics.whole
    assert (learner()[~whole] != before[~whole]).any() == (vectors != "only")
    assert (learner()[whole] != before[whole]).any() == (vectors not in ("mean", "trained"))


# ---- coefficients of whole task vectors ------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_of_vectors_stays(statistics: DirectionStatistics, kind: LearnerKind) -> None:
    learner = randomise(DirectionLearner(statistics, kind=kind, vectors="mean"))
    whole = statistics.whole
    assert torch.equal(learner()[whole], torch.full((int(whole.sum()),), 1 / 3))
    assert (learner()[~whole] != 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_vectors_is_free(statistics: DirectionStatistics, kind: LearnerKind) -> None:
    learner = randomise(DirectionLearner(statistics, kind=kind, vectors="table", scale=0.5))
    whole = statistics.whole
    torch.testing.assert_close(learner()[whole], 1 / 3 + 0.5 * learner.vector_table)
    learned = DirectionLearner(statistics, kind=kind, scale=0.5)
    learned.load_state_dict(learner.state_dict(), strict=False)
    assert torch.equal(learner()[~whole], learned()[~whole])


@pytest.mark.parametrize("vectors", ["learned", "table"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "constant_input"])
def test_scales_are_factors_on_the_movement(
    statistics: DirectionStatistics, kind: LearnerKind, vectors: VectorCoefficients
) -> None:
    start = DirectionLearner(statistics)().detach()
    learners = [
        randomise(
            DirectionLearner(
                statistics, kind=kind, vectors=vectors, scale=scale, vector_scale=vector_scale
            )
        )
        for scale, vector_scale in ((1.0, 1.0), (0.1, 20.0))
    ]
    plain, scaled = (learner().detach() - start for learner in learners)
    whole = statistics.whole
    torch.testing.assert_close(scaled[~whole], 0.1 * plain[~whole], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled[whole], 2.0 * plain[whole], rtol=1e-4, atol=1e-5)


# ---- inputs ----------------------------------------------------------------------------------


def test_inputs_are_on_one_scale(statistics: DirectionStatistics) -> None:
    """Zero mean and unit variance over all directions, before far ones are cut."""
    inputs = DirectionLearner(statistics).inputs
    assert inputs.abs().max() <= 3
    for name, values in zip(statistics.columns, inputs.T, strict=True):
        raw = statistics.values[:, statistics.columns.index(name)].double()
        if name == "experts":
            assert not values.any()  # the same for all
            continue
        expected = ((raw - raw.mean()) / raw.std(correction=0)).clamp(-3, 3)
        torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-4)


def test_absent_directions_are_seen_by_nobody(statistics: DirectionStatistics) -> None:
    """They change neither the scale nor a coefficient, and their inputs are zero."""
    count, features = statistics.values.shape
    padded = replace(
        statistics,
        values=torch.cat([statistics.values, torch.full((5, features), 1e4)]),
        present=torch.cat([statistics.present, torch.zeros(5, dtype=torch.bool)]),
        layer=torch.cat([statistics.layer, torch.full((5,), len(statistics.layers) - 1)]),
        task=torch.cat([statistics.task, torch.zeros(5, dtype=torch.long)]),
        whole=torch.cat([statistics.whole, torch.zeros(5, dtype=torch.bool)]),
    )
    learner, other = (randomise(DirectionLearner(each)) for each in (statistics, padded))
    assert not other.inputs[count:].any()
    torch.testing.assert_close(other()[:count], learner())


def test_one_direction_alone_has_a_learner() -> None:
    """Nothing to compare it with: all inputs are zero, and it learns all the same."""
    start = {"bias": torch.zeros(3)}
    bank = SpectralBank.from_state_dicts(start, {"a": {"bias": torch.ones(3)}})
    learner = DirectionLearner(direction_statistics(bank))
    assert not learner.inputs.any()
    assert torch.equal(learner(), torch.ones(1))
    trained(learner, torch.zeros(1))
    assert torch.isfinite(learner()).all()
    assert learner() < 0.9


# ---- prediction ------------------------------------------------------------------------------

PREDICTING = [kind for kind in KINDS if kind not in TABLES]


@pytest.mark.parametrize("kind", PREDICTING)
@pytest.mark.parametrize("vectors", ["learned", "mean"])
def test_prediction_for_the_same_experts_is_what_was_learned(
    statistics: DirectionStatistics, kind: LearnerKind, vectors: VectorCoefficients
) -> None:
    learner = randomise(DirectionLearner(statistics, kind=kind, vectors=vectors))
    assert learner.predicts
    assert torch.equal(learner.predict(statistics), learner())


@pytest.mark.parametrize("kind", PREDICTING)
@pytest.mark.parametrize("tasks", [[0, 1], [2], [1, 2, 0]])
def test_the_same_statistics_get_the_same_coefficients_among_other_experts(
    statistics: DirectionStatistics, kind: LearnerKind, tasks: list[int]
) -> None:
    """On the scale of training, whichever experts there are; vectors around their own 1/K."""
    learner = randomise(DirectionLearner(statistics, kind=kind))
    other = subset(statistics, tasks)
    found = learner.predict(other)
    kept = torch.isin(statistics.task, torch.tensor(tasks))
    if tasks == [1, 2, 0]:  # the same rows; their tasks have other numbers
        assert torch.equal(found, learner())
    elif kind == "constant_input":
        factor = learner() / torch.where(statistics.whole, 1 / 3, 1.0)
        own = torch.where(other.whole, 1 / len(tasks), 1.0)
        torch.testing.assert_close(found, own * factor[kept])
    else:
        moved = torch.where(other.whole, 1 / len(tasks) - 1 / 3, 0.0)
        torch.testing.assert_close(found, learner()[kept] + moved, rtol=1e-5, atol=1e-5)


def test_another_scale_is_not_taken_from_the_other_experts(
    statistics: DirectionStatistics,
) -> None:
    """Experts whose directions are all twice as long are not taken for those of training."""
    learner = randomise(DirectionLearner(statistics))
    column = statistics.columns.index("singular_value")
    values = statistics.values.clone()
    values[:, column] += torch.log(torch.tensor(2.0))
    found = learner.predict(replace(statistics, values=values))
    assert not torch.allclose(found, learner(), rtol=0, atol=1e-3)


def test_the_scale_is_part_of_the_learners_state(statistics: DirectionStatistics) -> None:
    learner = randomise(DirectionLearner(statistics))
    other = replace(statistics, values=statistics.values * 2 + 1)
    copy = DirectionLearner(other)
    copy.load_state_dict(learner.state_dict())
    assert torch.equal(copy.predict(statistics), learner())


@pytest.mark.parametrize(
    ("kind", "vectors"),
    [
        ("free", "learned"),
        ("free_per_layer", "mean"),
        ("shared_and_free", "learned"),
        ("shared", "table"),
        ("linear", "table"),
    ],
)
def test_a_table_predicts_nothing(
    statistics: DirectionStatistics, kind: LearnerKind, vectors: VectorCoefficients
) -> None:
    learner = DirectionLearner(statistics, kind=kind, vectors=vectors)
    assert not learner.predicts
    message = f"kind={kind}, vectors={vectors}: a table has no coefficients for other experts"
    with pytest.raises(MergingError, match=message):
        learner.predict(statistics)


def test_a_prediction_from_other_columns_is_refused(statistics: DirectionStatistics) -> None:
    learner = DirectionLearner(statistics.select(["position", "energy"]))
    with pytest.raises(MergingError, match=r"others than those the learner was made with: energy$"):
        learner.predict(statistics.select(["position"]))


def test_networks_per_layer_know_their_layers(statistics: DirectionStatistics) -> None:
    chosen = statistics.select(["position", "energy"])
    other = replace(chosen, layers=("elsewhere", *chosen.layers[1:]))
    with pytest.raises(MergingError, match="the other experts changed other layers"):
        DirectionLearner(chosen, kind="per_layer").predict(other)
    assert DirectionLearner(chosen).predict(other).shape == (len(chosen.values),)


# ---- bad input -------------------------------------------------------------------------------


def test_unknown_choices_name_the_valid_ones(statistics: DirectionStatistics) -> None:
    with pytest.raises(MergingError, match="kind=big: choose one of shared, per_layer, linear"):
        DirectionLearner(statistics, kind="big")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="vectors=none: choose one of learned, table, mean"):
        DirectionLearner(statistics, vectors="none")  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="hidden=0: must be at least 1"):
        DirectionLearner(statistics, hidden=0)


def test_same_generator_seed_gives_the_same_learner(statistics: DirectionStatistics) -> None:
    first, second = (
        DirectionLearner(statistics, generator=torch.Generator().manual_seed(4)) for _ in range(2)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
