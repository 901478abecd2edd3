"""Episodes: which subsets, what a step merges, and what a learner knows of other experts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.learning.data_module import TaskBalancedSampler, UnlabeledBatch
from statsmerging.learning.episodes import (
    EpisodePlan,
    EpisodicStudent,
    StatsMergingInEpisodes,
    statistics_among,
)
from statsmerging.learning.module import StatsMerging
from statsmerging.learning.settings import LabelsSettings, TrainerSettings
from statsmerging.merging import (
    DirectionLearner,
    DirectionStatistics,
    LayerStatistics,
    MergedModel,
    SpectralBank,
    StatsMergeLearner,
    TaskVectorBank,
    direction_statistics,
    layer_statistics,
)
from statsmerging.merging.bank import SomeExperts
from statsmerging.merging.merged_model import Bank
from statsmerging.merging.relations import relation_statistics
from statsmerging.zoo.heads import Head
from tests.conftest import JobRunner, run_in_process, write_suite
from tests.kills import KilledError
from tests.small_models import TinyBackbone

State = dict[str, Tensor]
Statistics = LayerStatistics | DirectionStatistics


# ---- which experts


@given(experts=st.integers(1, 7), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_subsets_are_different_of_two_to_all_experts_and_end_with_all(
    experts: int, count: int, seed: int
) -> None:
    plan = EpisodePlan.drawn(experts, count, seed)
    everyone = tuple(range(experts))
    possible = {
        subset for size in range(2, experts + 1) for subset in combinations(everyone, size)
    } | {everyone}
    assert set(plan.subsets) <= possible
    assert len(set(plan.subsets)) == len(plan.subsets) == min(count, len(possible))
    assert plan.subsets[-1] == everyone
    assert plan == EpisodePlan.drawn(experts, count, seed)


def test_another_seed_draws_others_and_small_subsets_are_as_frequent_as_large_ones() -> None:
    plans = [EpisodePlan.drawn(8, 12, seed) for seed in range(200)]
    assert len({plan.subsets for plan in plans}) == 200
    sizes = [len(subset) for plan in plans for subset in plan.subsets[:-1]]
    shares = [sizes.count(size) / len(sizes) for size in range(2, 8)]
    # A size of which there are few subsets, 8 of 7 experts, is drawn less often without repetition.
    assert all(0.12 < share < 0.2 for share in shares)


@given(step=st.integers(0, 500), seed=st.integers(0, 9))
def test_a_pass_visits_every_subset_once_whatever_step_is_asked_first(step: int, seed: int) -> None:
    plan = EpisodePlan.drawn(5, 7, seed)
    asked = plan.number(step)
    assert plan.members(step) == plan.subsets[asked]
    start = step // 7 * 7
    visited = [plan.number(start + place) for place in range(7)]
    assert sorted(visited) == list(range(7))
    assert visited[step - start] == asked


def test_batches_hold_the_tasks_of_their_step_and_continue_the_stream() -> None:
    plan = EpisodePlan.drawn(4, 6, seed=1)
    sizes = [7, 5, 9, 3]
    whole = list(TaskBalancedSampler(sizes, 2, 12, 3, plan.members))
    for step, batch in enumerate(whole):
        assert [task for task, _ in batch] == [t for t in plan.members(step) for _ in range(2)]
    for task, size in enumerate(sizes):
        visits = [index for batch in whole for t, index in batch if t == task]
        counts = [visits.count(index) for index in range(size)]
        assert max(counts) - min(counts) <= 1
    parts = TaskBalancedSampler(sizes, 2, 4, 3, plan.members)
    continued = []
    for epoch in range(3):
        parts.set_epoch(epoch)
        continued += list(parts)
    assert continued == whole


# ---- what a step merges


def of_granularity(bank: TaskVectorBank, granularity: str) -> tuple[Bank, Statistics]:
    if granularity == "layer_wise":
        statistics = layer_statistics(bank).beside(relation_statistics(bank))
        return bank, statistics
    directions = SpectralBank.from_bank(bank)
    return directions, direction_statistics(directions).beside(layer_statistics(bank))


def learner_of(
    statistics: Statistics, every: Sequence[Statistics] = ()
) -> StatsMergeLearner | DirectionLearner:
    """A learner that looks as if it had learned something."""
    if isinstance(statistics, DirectionStatistics):
        scales = [each for each in every if isinstance(each, DirectionStatistics)]
        learner: StatsMergeLearner | DirectionLearner = DirectionLearner(
            statistics, scaled_by=scales or None
        )
    else:
        learner = StatsMergeLearner(statistics)
    for number, weight in enumerate(learner.parameters()):
        nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(number))
    return learner


def of_module(tasks: Sequence[str], accumulate: Literal["joint", "per_task"]) -> tuple[Any, ...]:
    """Heads, scores and settings of a module; those of a task do not depend on the others."""
    heads, scores = {}, {}
    for number, task in enumerate(tasks):
        generator = torch.Generator().manual_seed(number)
        heads[task] = Head(torch.randn(4, 5, generator=generator), torch.zeros(4))
        scores[task] = torch.randn(10, 4, generator=generator)
    settings = TrainerSettings(
        steps=4,
        images_per_task=4,
        learning_rate=0.01,
        weight_decay=0.0,
        accumulate=accumulate,
        steps_per_epoch=2,
        seed=0,
    )
    normalise = Preprocess(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).normalise
    return heads, scores, normalise, LabelsSettings(), "teacher_labels", settings


def batch_of(tasks: int) -> UnlabeledBatch:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (4 * tasks, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return UnlabeledBatch(images, torch.arange(4).repeat(tasks))


def step_of(module: StatsMerging, batch: UnlabeledBatch) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradient of the learner."""
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = module.training_step(batch)
    loss.backward()
    gradients = [weight.grad for weight in module.learner.parameters()]
    return loss.detach(), [gradient.clone() for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("accumulate", ["joint", "per_task"])
@pytest.mark.parametrize("granularity", ["layer_wise", "singular_wise"])
def test_a_step_is_one_of_a_bank_of_these_experts_alone(
    bank: TaskVectorBank,
    experts: dict[str, State],
    granularity: str,
    accumulate: Literal["joint", "per_task"],
) -> None:
    """Loss and gradient are those of merging the two experts as if there were no third."""
    pair = {task: experts[task] for task in ("mnist", "cars")}
    whole = of_granularity(bank, granularity)
    some = of_granularity(SomeExperts(bank, pair), granularity)
    learner = learner_of(whole[1], [some[1], whole[1]])
    episodic = StatsMergingInEpisodes(
        learner,
        EpisodicStudent(TinyBackbone(), [some[0], whole[0]], "pretrained"),
        *of_module(bank.tasks, accumulate),
        plan=EpisodePlan(((0, 2), (0, 1, 2)), seed=next_first(0)),
        statistics=[some[1], whole[1]],
    )
    loss, gradient = step_of(episodic, batch_of(2))

    start = {**bank.kept, **bank.pretrained}
    alone = of_granularity(TaskVectorBank.from_state_dicts(start, pair), granularity)
    reference_learner = learner_of(whole[1], [some[1], whole[1]])
    reference = StatsMerging(
        reference_learner,
        MergedModel(TinyBackbone(), alone[0]),
        *of_module(bank.tasks, accumulate),
    )
    statistics: Any = alone[1]
    reference.coefficients = lambda: reference_learner.predict(statistics)  # type: ignore[method-assign]
    expected, expected_gradient = step_of(reference, batch_of(2))
    torch.testing.assert_close(loss, expected)
    assert sum(float(part.abs().sum()) for part in gradient) > 0
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-6)

    frozen = [w for name, w in episodic.named_parameters() if not name.startswith("learner.")]
    assert frozen
    assert all(not weight.requires_grad and weight.grad is None for weight in frozen)


def next_first(number: int) -> int:
    """A seed with which the first of two subsets to be visited is this one."""
    return next(s for s in range(99) if EpisodePlan(((0, 2), (0, 1, 2)), s).number(0) == number)


@pytest.mark.parametrize("granularity", ["layer_wise", "singular_wise"])
def test_banks_keep_sharing_the_pretrained_weights_when_they_move(
    bank: TaskVectorBank, experts: dict[str, State], granularity: str
) -> None:
    some = SomeExperts(bank, {task: experts[task] for task in ("svhn", "cars")})
    banks = [of_granularity(each, granularity)[0] for each in (some, bank)]
    student = EpisodicStudent(TinyBackbone(), banks, "pretrained")
    student.enter(0)
    first = banks[0]
    count = (sum(first.sizes.values()),) if isinstance(first, SpectralBank) else (6, 2)
    coefficients = torch.full(count, 0.4)
    images = torch.randn(2, 3, 8, 8)
    before = student(images, coefficients)
    student.double()
    for name, start in student.banks[1].pretrained.items():
        assert student.banks[0].pretrained[name].data_ptr() == start.data_ptr()
        if isinstance(student.banks[0], TaskVectorBank):
            assert isinstance(student.banks[1], TaskVectorBank)
            assert student.banks[0].vectors[name] is student.banks[1].vectors[name]
    student.enter(0)
    after = student(images.double(), coefficients.double())
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before, rtol=1e-4, atol=1e-5)
    student.leave()
    assert student.bank is banks[1]
    assert student.banks == (banks[1],)


def test_statistics_among_some_experts_are_those_of_a_bank_of_them(
    bank: TaskVectorBank, pretrained: State, experts: dict[str, State]
) -> None:
    pair = {task: experts[task] for task in ("cars", "svhn")}  # another order than the bank's
    whole = layer_statistics(bank).beside(relation_statistics(bank))
    found = statistics_among(SomeExperts(bank, pair), whole)
    alone = TaskVectorBank.from_state_dicts(pretrained, pair)
    expected = layer_statistics(alone).beside(relation_statistics(alone))
    assert (found.tasks, found.columns) == (expected.tasks, expected.columns)
    torch.testing.assert_close(found.values, expected.values)
    assert whole.of(bank.tasks).values.equal(whole.values)


# ---- what the learner knows of other experts


def test_only_a_scale_of_several_subsets_tells_numbers_of_experts_apart(
    bank: TaskVectorBank, experts: dict[str, State]
) -> None:
    """log K is the same for all directions of one set: its learner cannot read it."""
    pair = SomeExperts(bank, {task: experts[task] for task in ("mnist", "svhn")})
    sets = [direction_statistics(SpectralBank.from_bank(each)) for each in (pair, bank)]
    column = sets[1].columns.index("experts")
    of_pair = sets[1].values.clone()
    of_pair[:, column] = math.log(2) * sets[1].present
    as_if_two = replace(sets[1], values=of_pair)
    alone, several = learner_of(sets[1]), learner_of(sets[1], sets)
    assert isinstance(alone, DirectionLearner)
    assert isinstance(several, DirectionLearner)
    torch.testing.assert_close(alone.predict(as_if_two), alone())
    assert (several.predict(as_if_two) - several()).abs().max() > 1e-3


def test_one_scale_is_that_of_the_statistics_themselves(bank: TaskVectorBank) -> None:
    statistics = direction_statistics(SpectralBank.from_bank(bank))
    assert torch.equal(learner_of(statistics)(), learner_of(statistics, [statistics])())


# ---- runs


@pytest.fixture(scope="module")
def four_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_suite(tmp_path_factory.mktemp("four"), 24)
    for task in ("parity", "size"):
        (root / f"{task}_again").symlink_to(root / task)
    (root / "parity_new").symlink_to(root / "parity")
    return root


@pytest.fixture
def episodes(small_run: list[str], four_tasks: Path, tmp_path: Path) -> JobRunner:
    """Four experts, of which steps merge subsets."""
    tasks = "suite.tasks=[parity,size,parity_again,size_again]"
    own = [*small_run, f"suite.root={four_tasks}", tasks, "learning.episodes=4"]
    return lambda *overrides, directory=tmp_path / "run": run_in_process(
        [*own, *overrides], directory
    )


def coefficients(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "coefficients.parquet")


@pytest.mark.parametrize("method", ["stats_merging", "singular_wise"])
def test_a_killed_run_continues_and_ends_at_the_same_coefficients(
    episodes: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    overrides = (f"method=[{method}]", "statistics=related")
    whole = episodes(*overrides, directory=tmp_path / "whole")
    step = StatsMergingInEpisodes.training_step
    tasks: list[tuple[str, ...]] = []

    def recording(self: StatsMergingInEpisodes, batch: UnlabeledBatch) -> Tensor:
        if len(tasks) == 3:
            tasks.append(())
            raise KilledError
        loss = step(self, batch)
        tasks.append(self.student.bank.tasks)
        return loss

    monkeypatch.setattr(StatsMergingInEpisodes, "training_step", recording)
    with pytest.raises(KilledError):
        episodes(*overrides, directory=tmp_path / "killed")
    continued = episodes(*overrides, directory=tmp_path / "killed")
    assert coefficients(tmp_path / "killed").equals(coefficients(tmp_path / "whole"))
    # Three steps and the kill; then the third one again, since two were in the checkpoint.
    assert len(tasks) == 4 + 4
    assert tasks[2] == tasks[4]
    assert len(set(tasks)) > 2
    assert all(2 <= len(merged) <= 4 for merged in tasks if merged)
    # Four images of each task that a step has merged, in whichever process it was.
    cost = continued["methods"][method]["cost"]
    assert cost == whole["methods"][method]["cost"]
    assert cost["images"] == 4 * sum(map(len, [*tasks[:2], *tasks[4:]]))


def test_another_seed_and_no_episodes_give_other_coefficients(
    episodes: JobRunner, tmp_path: Path
) -> None:
    found = []
    for number, more in enumerate([(), ("learning.episodes=null",), ("trainer.seed=1",)]):
        episodes("method=[singular_wise]", *more, directory=tmp_path / str(number))
        found.append(coefficients(tmp_path / str(number))["coefficient"])
    assert not found[0].equals(found[1])
    assert not found[0].equals(found[2])


def test_two_processes_learn_what_one_learns(episodes: JobRunner, tmp_path: Path) -> None:
    found, costs = [], []
    for devices in (1, 2):
        more = (f"trainer.devices={devices}", "trainer.steps=4")
        results = episodes("method=[singular_wise]", *more, directory=tmp_path / str(devices))
        costs.append(results["methods"]["singular_wise"]["cost"])
        found.append(coefficients(tmp_path / str(devices)))
    pd.testing.assert_frame_equal(found[1], found[0], rtol=0, atol=1e-4)
    assert found[0]["coefficient"].nunique() > 8
    assert costs[0] == costs[1]
    # What the other process takes, this one does not know.
    assert "learning" not in results["measured"]["singular_wise"]["memory"]


@pytest.mark.parametrize("method", ["stats_merging", "singular_wise"])
def test_two_experts_have_one_subset_and_off_is_off(
    run_job: JobRunner, tmp_path: Path, method: str
) -> None:
    found = []
    for value in ("null", "0", "5"):
        run_job(f"method=[{method}]", f"learning.episodes={value}", directory=tmp_path / value)
        found.append(coefficients(tmp_path / value))
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method=[stats_merging]", "learner=free"],
            "method.stats_merging.episodes=4: needs learner=shared | per_layer | linear | "
            "constant_input, not free",
        ),
        (
            ["method=[singular_wise]", "learner.vectors=table"],
            "method.singular_wise.episodes=4: needs vectors=learned | mean, not table",
        ),
        (
            ["method=[stats_merging]", "method.stats_merging.density=0.2"],
            "method.stats_merging.episodes=4: needs density=null, not 0.2",
        ),
        (["learning.episodes=-1"], "learning.episodes=-1: input should be greater than or equal"),
    ],
)
def test_what_cannot_learn_from_subsets_is_refused_in_one_line(
    episodes: JobRunner, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as raised:
        episodes(*overrides)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_tables_learn_from_all_experts_beside_methods_that_learn_in_episodes(
    episodes: JobRunner,
) -> None:
    results = episodes("method=[free,singular_wise]", "trainer.steps=2")
    rows = results["methods"]
    assert rows["free"]["parameters"]["episodes"] is None
    assert rows["singular_wise"]["parameters"]["episodes"] == 4


@pytest.mark.parametrize("method", ["stats_merging", "singular_wise", "constant_singular_wise"])
def test_a_learner_of_three_experts_predicts_for_two(
    episodes: JobRunner, tmp_path: Path, method: str
) -> None:
    tasks, unseen = "suite.tasks=[parity,size,parity_again]", "suite.unseen=[size_again,parity_new]"
    results = episodes("job=transfer", f"method=[{method}]", tasks, unseen)
    assert set(results["methods"][method]["unseen"]["accuracy"]) == {"size_again", "parity_new"}
    table = coefficients(tmp_path / "run")
    of_unseen = table["task"].isin(["size_again", "parity_new"])
    predicted = table[(table["method"] == method) & of_unseen]
    assert predicted["task"].nunique() == 2
    assert predicted["coefficient"].notna().all()
    if method == "constant_singular_wise":
        # One factor on 1, for matrices, and on 1 / K.
        of_two = predicted["coefficient"].unique()
        of_three = table[table["task"] == "parity"]["coefficient"].unique()
        assert sorted(of_two / of_two.max()) == pytest.approx([1 / 2, 1])
        assert sorted(of_three / of_three.max()) == pytest.approx([1 / 3, 1])
        assert of_two.max() == pytest.approx(of_three.max())
        assert of_two.max() != 1
    else:
        assert predicted["coefficient"].nunique() > 2
