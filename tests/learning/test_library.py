"""The library's one call: what it learns, from what, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import statsmerging
from statsmerging.data.images import ImageSplit
from statsmerging.errors import UserError
from statsmerging.learning.library.fit import LearnedMerge, fit
from statsmerging.learning.library.inputs import _digests, hold_out, read_inputs
from statsmerging.learning.library.options import DEFAULTS, HIDDEN
from statsmerging.learning.merger import Merger
from statsmerging.merging import MergingError
from tests.conftest import ROOT, JobRunner

Problem = dict[str, Any]


class Gated(nn.Module):
    """A backbone of one's own, with a tensor that no layer of torch has."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.gate = nn.Parameter(torch.ones(8))
        self.leave = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.leave(torch.relu(self.enter(inputs)) * self.gate)
        return output


def problem_of(*tasks: str) -> Problem:
    """Arguments of ``fit``: random experts, and heads and inputs for them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Gated().train()
        start = {name: value.clone() for name, value in backbone.state_dict().items()}
        return {
            "backbone": backbone,
            "pretrained": start,
            "experts": {
                task: {name: value + 0.4 * torch.randn_like(value) for name, value in start.items()}
                for task in tasks
            },
            "heads": {task: nn.Linear(5, 3) for task in tasks},
            "inputs": {task: torch.randn(40, 6) for task in tasks},
            "accelerator": "cpu",
        }


@pytest.fixture
def problem() -> Problem:
    return problem_of("mnist", "svhn")


@pytest.fixture(scope="module")
def learned() -> LearnedMerge:
    return statsmerging.fit(**problem_of("mnist", "svhn"), steps=30)


def test_it_learns_and_tells_what(learned: LearnedMerge) -> None:
    losses = learned.curves["loss"]
    assert len(losses) == len(learned.curves["loss/mnist"]) == 30
    assert sum(losses[-5:]) < sum(losses[:5])
    assert learned.coefficients.shape == (5, 2)  # two matrices, their biases, and the gate
    assert learned.held_out == {"mnist": 8, "svhn": 8}
    assert all(0 <= share <= 1 for share in learned.agreement.values())
    first, *rows = repr(learned).splitlines()
    assert "layer_wise, 5 layers, 2 tasks" in first
    assert "in 30 steps" in first
    assert [row.split()[0] for row in rows] == ["mnist", "svhn"]
    assert f"{learned.agreement['svhn']:.1%} of 8" in rows[1]


def test_the_merged_model_is_the_task_vectors_under_these_coefficients(
    learned: LearnedMerge,
) -> None:
    """θ₀ + Σ λ T, recomputed in float64, and the module is the backbone with it."""
    given = problem_of("mnist", "svhn")
    rows = dict(zip(learned.bank.layers, learned.coefficients.double(), strict=True))
    for name, start in given["pretrained"].items():
        vectors = [state[name].double() - start.double() for state in given["experts"].values()]
        moved = sum(factor * vector for factor, vector in zip(rows[name], vectors, strict=True))
        torch.testing.assert_close(learned.state[name].double(), start.double() + moved)
    inputs = given["inputs"]["mnist"]
    backbone = given["backbone"].eval()
    backbone.load_state_dict(learned.state)
    assert torch.equal(learned.model(inputs), backbone(inputs))
    head = given["heads"]["mnist"]
    _, held_out = hold_out("mnist", inputs, 0.2)
    backbone.load_state_dict(given["experts"]["mnist"])
    same = head(learned.model(held_out)).argmax(1) == head(backbone(held_out)).argmax(1)
    assert learned.agreement["mnist"] == float(same.float().mean())


def test_nothing_that_is_given_is_changed(problem: Problem) -> None:
    before = copy.deepcopy(problem)
    fit(**problem, steps=2).model.load_state_dict(problem["pretrained"])
    assert problem["backbone"].training
    assert all(weight.requires_grad for weight in problem["backbone"].parameters())
    assert all(weight.requires_grad for weight in problem["heads"]["mnist"].parameters())
    for now, then in (
        (problem["backbone"], before["backbone"]),
        *zip(problem["heads"].values(), before["heads"].values(), strict=True),
    ):
        assert all(map(torch.equal, now.parameters(), then.parameters()))
    for name, start in problem["pretrained"].items():
        assert torch.equal(start, before["pretrained"][name])
        for task, state in problem["experts"].items():
            assert torch.equal(state[name], before["experts"][task][name])


def test_a_seed_gives_the_same_bits_and_another_one_others(problem: Problem) -> None:
    torch.manual_seed(1)
    first = fit(**problem, steps=3).coefficients
    torch.manual_seed(2)
    assert torch.equal(fit(**problem, steps=3).coefficients, first)
    assert not torch.equal(fit(**problem, steps=3, seed=1).coefficients, first)


class Items(Dataset[Any]):
    """A data set of pairs that has no iterator of its own, and whose labels are not read."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> tuple[Tensor, str]:
        return self.inputs[number % len(self.inputs)], "a label"


class Stream(IterableDataset[Any]):
    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __iter__(self) -> Any:
        return iter(self.inputs)


@pytest.mark.parametrize(
    "given",
    [
        lambda inputs: inputs.numpy(),
        lambda inputs: inputs.double(),
        Items,
        Stream,
        list,
        lambda inputs: TensorDataset(inputs, torch.zeros(len(inputs))),
        lambda inputs: DataLoader(Items(inputs), batch_size=7),
        lambda inputs: DataLoader(Stream(inputs), batch_size=7),
        lambda inputs: (batch for batch in inputs.split(9)),
    ],
    ids=["array", "double", "items", "stream", "list", "pairs", "loader", "streamed", "generator"],
)
def test_tensors_data_sets_and_loaders_are_read_alike(given: Callable[[Tensor], Any]) -> None:
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(read_inputs({"mnist": given(inputs)})["mnist"], inputs)


def test_a_loader_learns_what_its_tensor_does(problem: Problem) -> None:
    expected = fit(**problem, steps=3)
    problem["inputs"] = {
        task: DataLoader(TensorDataset(inputs, torch.zeros(40)), batch_size=16)
        for task, inputs in problem["inputs"].items()
    }
    found = fit(**problem, steps=3)
    assert torch.equal(found.coefficients, expected.coefficients)
    assert found.agreement == expected.agreement


def test_inputs_are_held_out_as_a_job_does() -> None:
    """Copies of an input are on one side, and no input is on both."""
    images = torch.randint(0, 256, (50, 3, 2, 2), dtype=torch.uint8)
    images[40:] = images[:10]
    split = ImageSplit(images, torch.zeros(50), _digests(images), "")
    rest, held = split.held_out(0.2)
    learning, held_out = hold_out("mnist", images, 0.2)
    assert torch.equal(learning, rest.images[:])
    assert torch.equal(held_out, held.images[:])
    assert not set(map(bytes, _digests(learning).numpy())) & set(
        map(bytes, _digests(held_out).numpy())
    )
    assert all(torch.equal(part, images) for part in hold_out("mnist", images, 0))


@pytest.mark.parametrize("granularity", ["layer_wise", "task_wise", "singular_wise"])
def test_one_expert_alone_is_learned_too(granularity: Any) -> None:
    learned = fit(**problem_of("mnist"), steps=3, granularity=granularity)
    assert learned.bank.tasks == ("mnist",)
    assert torch.isfinite(learned.coefficients).all()
    assert "1 task;" in repr(learned)


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "soft", "temperature": 2.0},
        {"objective": "entropy", "learner": "free"},
        {"anchor": "none", "accumulate": "per_task"},
        {"granularity": "singular_wise", "learner": "masks", "spectral": {"orthonormal": False}},
        {"statistics": {"features": ["mean", "cosine"], "rank": 1}},
        {"vectors": "trained", "held_out": 0},
    ],
)
def test_options_change_what_is_learned(
    problem: Problem, learned: LearnedMerge, options: dict[str, Any]
) -> None:
    found = fit(**problem, steps=30, **options)
    changed = found.state["gate"] - learned.state["gate"]
    assert float(changed.abs().max()) > 1e-4
    assert torch.isfinite(changed).all()


def test_half_precision_comes_back_in_half(problem: Problem) -> None:
    for states in (problem, problem["experts"]):
        for name, state in states.items():
            if name in ("pretrained", "mnist", "svhn"):
                states[name] = {layer: value.bfloat16() for layer, value in state.items()}
    learned = fit(**problem, steps=2)
    assert {value.dtype for value in learned.state.values()} == {torch.bfloat16}


class Scaled(nn.Module):
    """A learner of one's own: one number for each task."""

    def __init__(self, statistics: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(len(statistics.tasks)))

    def forward(self) -> Tensor:
        return 0.3 + self.weight


def test_a_learner_of_ones_own(problem: Problem) -> None:
    torch.manual_seed(1)
    first = fit(**problem, steps=20, learner=Scaled)
    assert isinstance(first.learner, Scaled)
    assert torch.equal(first.coefficients, first.learner().detach())
    assert first.curves["loss"][-1] < first.curves["loss"][0]
    torch.manual_seed(2)
    assert torch.equal(fit(**problem, steps=20, learner=Scaled).coefficients, first.coefficients)


def without(given: Problem, part: str, *path: str) -> None:
    place = given[part]
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]


def put(part: str, name: str, value: Any) -> Callable[[Problem], None]:
    return lambda given: given[part].__setitem__(name, value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda given: given.update(step=3), r"^step: no such option; .*; did you mean steps\?$"),
        (lambda given: given.update(granularity="layerwise"), r"did you mean layer_wise\?$"),
        (lambda given: given.update(labels="ground_truth"), "^labels=ground_truth: choose one of"),
        (lambda given: given.update(learner="fre"), r"^learner=fre: .*; did you mean free\?$"),
        (lambda given: given.update(learner="masks"), "^learner=masks: only with granularity=sing"),
        (lambda given: given.update(steps=0), "^steps=0: input should be greater than 0$"),
        (lambda given: given.update(inputs_per_task=0), "^inputs_per_task=0: input should"),
        (lambda given: given.update(held_out=0.9), "^held_out=0.9: input should be less than"),
        (lambda given: given.update(statistics={"rnk": 1}), "^rnk=1: extra inputs are not"),
        (lambda given: given.update(accelerator="cuda"), "^accelerator=cuda: choose one of auto"),
        (lambda given: given.update(experts={}), "^experts: there is none to merge"),
        (lambda given: given.update(learner=lambda _: 1), "^learner: it gives int, not a torch"),
        (lambda given: given.update(learner=lambda _: nn.Flatten()), "no parameter to be learned"),
        (lambda given: without(given, "heads", "svhn"), "^heads: none for task svhn; there are"),
        (put("inputs", "cars", torch.ones(9, 6)), "^inputs: there is no expert for task cars$"),
        (lambda given: without(given, "pretrained", "gate"), r"'gate': backbone \(8,\), pre-train"),
        (lambda given: without(given, "experts", "svhn", "gate"), "'gate': .* expert svhn missing"),
        (put("inputs", "svhn", torch.ones(9, 7)), "^inputs of mnist and svhn differ, 40 of 6 in "),
        (put("inputs", "svhn", torch.ones(9, 6)), "^held_out=0.2 needs at least two different in"),
        (put("inputs", "svhn", []), "^inputs of svhn are 0 of nothing"),
        (put("inputs", "svhn", 3), "^inputs of svhn cannot be read: int is no tensor, data set"),
        (put("inputs", "svhn", [{"x": 1}]), "^inputs of svhn cannot be read: an item is dict, not"),
        (put("heads", "svhn", nn.Linear(4, 3)), "^teacher svhn: backbone and head cannot score"),
        (put("heads", "svhn", nn.Flatten(0)), r"^teacher svhn: the head gives \(\d+,\); class"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(
    problem: Problem, spoil: Callable[[Problem], None], message: str
) -> None:
    spoil(problem)
    with pytest.raises((UserError, MergingError), match=message) as refused:
        fit(**problem)
    assert "\n" not in str(refused.value)


def test_tied_weights_are_refused(problem: Problem) -> None:
    problem["backbone"].twin = problem["backbone"].enter
    for state in (problem["pretrained"], *problem["experts"].values()):
        state |= {f"twin.{part}": state[f"enter.{part}"] for part in ("weight", "bias")}
    with pytest.raises(MergingError, match=r"^the backbone ties enter\.\w+ to twin\.\w+, which is"):
        fit(**problem)


def test_coefficients_of_a_wrong_shape_are_told_before_any_step(problem: Problem) -> None:
    class Wrong(Scaled):
        def forward(self) -> Tensor:
            return self.weight[:1]

    with pytest.raises(MergingError, match=r"coefficients have shape \(1,\), expected \(5, 2\)"):
        fit(**problem, learner=Wrong)


def test_it_leaves_no_file(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(**problem, steps=2)
    assert list(tmp_path.iterdir()) == []


def test_the_defaults_are_those_of_the_command() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config"))
    told = {
        "granularity": config["granularity"],
        "labels": config["labels"]["kind"],
        "temperature": config["labels"]["temperature"],
        "objective": config["objective"],
        "anchor": config["merge"]["anchor"],
        "vectors": config["learner"]["vectors"],
        "steps": config["trainer"]["steps"],
        "learning_rate": config["trainer"]["learning_rate"],
        "inputs_per_task": config["trainer"]["images_per_task"],
        "accumulate": config["trainer"]["accumulate"],
        "held_out": config["learning"]["held_out"],
        "seed": config["seed"],
        "statistics": config["statistics"],
        "spectral": {},
    }
    assert told == DEFAULTS
    assert config["learner"]["hidden"] == HIDDEN


def test_it_learns_to_the_bit_what_a_job_learns(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mergers = []

    class Remembered(Merger):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            mergers.append(self)

    monkeypatch.setattr("statsmerging.jobs.merge.Merger", Remembered)
    names = {
        "stats_merging": "layer_wise",
        "stats_merging_task_wise": "task_wise",
        "singular_wise": "singular_wise",
    }
    chosen = f"method=[{','.join(names)}]"
    rows = run_job(chosen, "labels=soft", "labels.temperature=2", "learning.held_out=0")["methods"]
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    (merger,) = mergers
    zoo = merger.zoo
    for name, granularity in names.items():
        options: Any = {"granularity": granularity}
        learned = fit(
            zoo.network.module,
            zoo.pretrained,
            {task: zoo.experts[task].state for task in merger.images},
            {task: zoo.experts[task].head for task in merger.images},
            {task: split.images[:] for task, split in merger.images.items()},
            normalise=zoo.preprocess.normalise,
            accelerator="cpu",
            labels="soft",
            temperature=2.0,
            steps=6,
            inputs_per_task=4,
            held_out=0,
            **options,
        )
        expected = table[table["method"] == name]["coefficient"].tolist()
        assert [each.value for each in learned.listed()] == expected
        average = sum(learned.agreement.values()) / len(learned.agreement)
        assert average == rows[name]["teacher_agreement"]
