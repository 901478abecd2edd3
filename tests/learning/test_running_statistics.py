"""Running statistics of merged models: whose images they are of, and which are chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call

from statsmerging.choices import RunningStatistics
from statsmerging.data.images import ImageSplit
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.learning.cost import Expense, Meter
from statsmerging.learning.merged import Merged
from statsmerging.learning.running_statistics import Recalibration, mixed_rows
from statsmerging.merging import TaskVectorBank
from statsmerging.merging.methods.base import TaskModels
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.report.tables.text import markdown
from statsmerging.runs.cost import Cost
from statsmerging.runs.results import BOUNDS, read_results
from statsmerging.scoring.scores import Candidate, TeacherAgreement
from statsmerging.store.cache import Cache
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.heads import Head
from statsmerging.zoo.network import Network
from statsmerging.zoo.weights import Weights
from tests.conftest import JobRunner, run_in_process
from tests.scoring.conftest import unlabeled
from tests.small_models import TinyBackbone

MEAN, VARIANCE = "normalisation.running_mean", "normalisation.running_var"
SIZES = {"mnist": 40, "svhn": 40, "cars": 10}
COUNTS = st.lists(st.integers(2, 300), min_size=1, max_size=6)


@given(COUNTS)
def test_batches_have_every_task_equally_often(sizes: list[int]) -> None:
    batches = mixed_rows(sizes)
    for number, size in enumerate(sizes):
        rows = torch.cat([batch[number] for batch in batches])
        assert len(rows) == max(sizes)
        times = torch.bincount(rows, minlength=size)
        assert len(times) == size
        assert times.max() - times.min() <= 1
    for batch in batches:
        assert len({len(rows) for rows in batch}) == 1
        assert 2 <= sum(map(len, batch)) <= 128 + len(sizes)


class _Rows:
    """A method's rows on random weights, with images of one level of brightness for each task."""

    def __init__(self, folder: Path, bank: TaskVectorBank) -> None:
        torch.manual_seed(0)
        network = Network(
            TinyBackbone(), Preprocess(8, (0.5,) * 3, (0.5,) * 3), torch.device("cpu")
        )
        average = bank.merge(torch.ones(3) / 3)
        # Statistics that fit no image: the ReLU cuts everything off, and the last class is given.
        state = Weights({**average, MEAN: average[MEAN] + 50})
        weight = torch.randn(4, 5)
        head = Head(weight, torch.tensor([0.0, 0.0, 0.0, 1e-3]) - weight @ state["projection.bias"])
        zoo = Zoo(network, state, {task: Expert(state, head) for task in [*SIZES, "unseen"]})
        self.images = {
            task: ImageSplit(split.images[:] // (seed + 1), split.labels, split.digests, split.key)
            for seed, (task, count) in enumerate(SIZES.items())
            for split in [unlabeled(count, 8, seed)]
        }
        about = {"title": "Average", "needs": "nothing", "returns": "state dict", "parameters": {}}
        self.merged = Merged(
            "average", Candidate.of_state("average", zoo, state, keep=False), about, state
        )
        self.state, self.zoo, self.cache = state, zoo, Cache(folder)

    def recalibrated(
        self, chosen: RunningStatistics, merged: Merged | None = None, like: Merged | None = None
    ) -> Merged:
        """The row as chosen; ``auto`` asks for agreement with the classes of ``like``."""

        def agreement() -> TeacherAgreement:
            assert like is not None
            return TeacherAgreement(self.images, self.scores(like.candidate), self.cache)

        def meter() -> Meter:
            return Meter(torch.device("cpu"), self.cache)

        return Recalibration(chosen, self.images, agreement, meter).of(merged or self.merged)

    def scores(self, candidate: Candidate) -> dict[str, Tensor]:
        with torch.no_grad():
            return {
                task: self.zoo.experts[task].head(
                    functional_call(
                        self.zoo.network.module, dict(candidate.weights_of(task)), (inputs,)
                    )
                )
                for task in SIZES
                for inputs in [self.inputs(task)]
            }

    def inputs(self, task: str) -> Tensor:
        return self.zoo.preprocess.normalise(self.images[task].images[:])

    def hidden(self, task: str) -> Tensor:
        """What the normalisation of the merged model sees, in float64: 4 × positions."""
        weight, bias = (self.state[f"convolution.{part}"].double() for part in ("weight", "bias"))
        output = torch.nn.functional.conv2d(self.inputs(task).double(), weight, bias)
        return output.transpose(0, 1).flatten(1)


@pytest.fixture
def rows(tmp_path: Path, bank: TaskVectorBank) -> _Rows:
    return _Rows(tmp_path, bank)


def assert_statistics(state: Mapping[str, Tensor], mean: Tensor, variance: Tensor) -> None:
    torch.testing.assert_close(state[MEAN].double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state[VARIANCE].double(), variance, rtol=1e-4, atol=1e-5)


def test_averaged_leaves_the_row_untouched(rows: _Rows) -> None:
    assert rows.recalibrated("averaged") is rows.merged


def test_pooled_statistics_are_of_all_tasks_alike(rows: _Rows) -> None:
    """The task with a quarter of the images counts as much as the others."""
    row = rows.recalibrated("pooled")
    hidden = [rows.hidden(task) for task in SIZES]
    mean = torch.stack([each.mean(1) for each in hidden]).mean(0)
    second = torch.stack([(each**2).mean(1) for each in hidden]).mean(0)
    count = 3 * hidden[0].shape[1]
    assert row.state is not None
    assert_statistics(row.state, mean, (second - mean**2) * count / (count - 1))
    assert all(
        torch.equal(row.state[name], rows.state[name])
        for name in rows.state
        if name not in (MEAN, VARIANCE)
    )
    assert list(row.candidate.weights) == [*SIZES, "unseen"]
    assert all(weights is row.state for weights in row.candidate.weights.values())
    assert row.about["needs"] == "unlabeled images"
    assert (row.about["returns"], row.about["running_statistics"]) == ("state dict", "pooled")
    assert row.own.cost == Cost(images=120, forward_passes=120)


def test_each_task_has_statistics_of_its_own_images(rows: _Rows) -> None:
    row = rows.recalibrated("per_task")
    assert list(row.candidate.weights) == list(SIZES)
    for task, state in row.candidate.weights.items():
        assert_statistics(state, rows.hidden(task).mean(1), rows.hidden(task).var(1))
        assert torch.equal(state["projection.weight"], rows.state["projection.weight"])
    assert row.state is None
    assert (row.about["returns"], row.about["running_statistics"]) == ("adapters", "per_task")
    assert row.own.cost == Cost(images=90, forward_passes=90)


def test_a_method_with_a_model_per_task_has_its_own_statistics_anyway(rows: _Rows) -> None:
    models = TaskModels(
        tuple(SIZES),
        lambda task: {**rows.state, "projection.bias": torch.full((5,), float(len(task)))},
    )
    merged = Merged(
        "emr",
        Candidate("EMR", rows.zoo, models, keep=False),
        {**rows.merged.about, "returns": "adapters"},
    )
    row = rows.recalibrated("pooled", merged)
    for task, state in row.candidate.weights.items():
        assert_statistics(state, rows.hidden(task).mean(1), rows.hidden(task).var(1))
        assert torch.equal(state["projection.bias"], torch.full((5,), float(len(task))))
    assert row.about["running_statistics"] == "per_task"


def test_auto_takes_what_agrees_more_and_counts_both(rows: _Rows) -> None:
    pooled = rows.recalibrated("pooled")
    for like, kind, needs in (
        (pooled, "pooled", "unlabeled images"),
        (rows.merged, "averaged", "nothing"),
    ):
        row = rows.recalibrated("auto", like=like)
        assert (row.about["running_statistics"], row.about["needs"]) == (kind, needs)
        expected, found = rows.scores(like.candidate), rows.scores(row.candidate)
        assert all(torch.equal(expected[task], found[task]) for task in SIZES)
        assert row.own.cost == Cost(images=120, forward_passes=120 + 2 * 90)
        assert row.state is not None


def test_auto_does_not_take_a_model_whose_scores_are_not_finite(rows: _Rows) -> None:
    pooled = rows.recalibrated("pooled")
    broken = Weights({**rows.state, MEAN: torch.full((4,), torch.inf)})
    merged = Merged(
        "average",
        Candidate.of_state("average", rows.zoo, broken, keep=False),
        rows.merged.about,
        broken,
        own=Expense(Cost(parameters=7)),
    )
    row = rows.recalibrated("auto", merged, like=pooled)
    assert row.about["running_statistics"] == "pooled"
    assert row.own.cost.parameters == 7


def test_one_image_has_no_variance(rows: _Rows) -> None:
    rows.images["cars"] = rows.images["cars"].sample(1)
    with pytest.raises(UserError, match=r"running_statistics=pooled: cars has 1 learning image"):
        rows.recalibrated("pooled")


CNN: dict[str, Any] = {"layers": [1] * 4, "channels": [4, 8, 8, 16], "stem_width": 4}
METHODS = "method=[task_arithmetic,stats_merging,emr,surgery,simple_average]"
WARNING = "batch normalisation differ from the pre-trained ones in parity, size,"
Runs = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("running_statistics")


@pytest.fixture(scope="module")
def runs(suite_root: Path, shared_cache: Path, folder: Path) -> Runs:
    """A run of each choice, of two experts of a small CNN with running statistics of their own."""
    torch.manual_seed(1)
    start = folder / "start.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=0, **CNN).state_dict(), start)
    backbone = [
        "suite=folder",
        f"suite.root={suite_root}",
        f"cache={shared_cache}",
        "accelerator=cpu",
        "backbone=micro_cnn",
        "backbone.arguments={layers:[1,1,1,1],channels:[4,8,8,16],stem_width:4,output_stride:32}",
        f"backbone.weights={start}",
    ]
    steps = ["zoo.finetuning.steps=10", "zoo.finetuning.batch_size=16"]
    run_in_process([*backbone, *steps, "job=finetune"], folder / "zoo")
    for number, task in enumerate(("parity", "size"), start=1):
        file = folder / "zoo" / "experts" / f"{task}.safetensors"
        tensors = load_file(file)
        for name in tensors:
            if name.endswith("running_var"):
                tensors[name] = tensors[name] * 10**number
        save_file(tensors, file)
    steps = ["trainer.steps=4", "trainer.steps_per_epoch=2", "trainer.images_per_task=4"]
    methods = [METHODS, "method.surgery.steps=3", "method.task_arithmetic.tune=[0.1,0.5]"]
    zoo = ["zoo=local", f"zoo.root={folder}/zoo/experts", *steps, *methods]
    return {
        chosen: run_in_process(
            [*backbone, *zoo, f"merge.running_statistics={chosen}"], folder / chosen
        )
        for chosen in get_args(RunningStatistics)
    }


def test_rows_of_every_kind_have_the_chosen_statistics(runs: Runs) -> None:
    averaged, pooled, own = (
        runs[chosen]["methods"] for chosen in ("averaged", "pooled", "per_task")
    )
    assert list(averaged) == list(pooled) == list(own)
    merged = [name for name in averaged if name not in BOUNDS]
    assert len(merged) == 6  # one of them is tuned
    for name in merged:
        assert "running_statistics" not in averaged[name]
        of_each = "per_task" if name == "emr" else "pooled"
        assert pooled[name]["running_statistics"] == of_each
        assert own[name]["running_statistics"] == "per_task"
        assert pooled[name]["needs"] == own[name]["needs"] == "unlabeled images"
        assert pooled[name]["returns"] == averaged[name]["returns"]
        assert own[name]["returns"] == "adapters"
    for bound in ("pretrained", "individual"):
        assert averaged[bound] == pooled[bound] == own[bound]


def test_auto_has_the_agreement_of_the_better_choice(runs: Runs) -> None:
    for name in ("simple_average", "task_arithmetic", "stats_merging", "emr"):
        averaged, pooled, auto = (
            runs[chosen]["methods"][name]["teacher_agreement"]
            for chosen in ("averaged", "pooled", "auto")
        )
        assert auto == max(averaged, pooled)
    assert {row.get("running_statistics") for row in runs["auto"]["methods"].values()} > {None}


def test_only_averages_of_other_statistics_are_warned_of(runs: Runs) -> None:
    warned = {
        chosen: [line for line in results["warnings"] if WARNING in line]
        for chosen, results in runs.items()
    }
    assert {chosen: len(lines) for chosen, lines in warned.items()} == {
        "averaged": 1,
        "pooled": 0,
        "per_task": 0,
        "auto": 0,
    }


def test_tables_tell_where_the_statistics_are_from(runs: Runs, folder: Path) -> None:
    def table(chosen: str) -> str:
        return markdown(accuracy_content([read_results(folder / chosen)]))

    told = "running statistics of batch normalisation: "
    assert told not in table("averaged")
    assert f"{told}measured on learning images of each task alone" in table("per_task")
    assert "One static model" not in table("per_task").replace("Not one static model", "")
    titles = "Task arithmetic · Task arithmetic, tuned · StatsMerging · Representation Surgery"
    assert (
        f"{told}measured on learning images of all tasks together ({titles} · Simple average) or "
        "measured on learning images of each task alone (EMR-Merging)"
    ) in table("pooled")


def test_the_exported_model_has_the_pooled_statistics(runs: Runs, folder: Path) -> None:
    averaged, pooled = (
        load_file(folder / chosen / "merged.safetensors") for chosen in ("averaged", "pooled")
    )
    differ = {name for name in averaged if not torch.equal(averaged[name], pooled[name])}
    running = {name for name in averaged if name.endswith(("running_mean", "running_var"))}
    assert differ == running

    def export(chosen: str) -> None:
        overrides = [f"job.run={folder / chosen}", f"job.target={folder}/exported"]
        run_in_process(["job=export", *overrides], folder / f"export {chosen}")

    export("pooled")
    exported = load_file(folder / "exported" / "timm" / "model.safetensors")
    assert all(torch.equal(exported[name], pooled[name]) for name in pooled)
    assert not (folder / "per_task" / "merged.safetensors").exists()
    with pytest.raises(UserError, match=r"merge\.running_statistics=pooled gives one model"):
        export("per_task")


def test_without_batch_normalisation_nothing_changes(
    run_job: JobRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = {}
    for chosen in ("averaged", "pooled", "per_task", "auto"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            setting = f"merge.running_statistics={chosen}"
            rows[chosen] = run_job(setting, directory=tmp_path / chosen)["methods"]
        assert (f"{setting} changes nothing" in caplog.text) == (chosen != "averaged")
    assert all(each == rows["averaged"] for each in rows.values())


def test_a_transfer_uses_no_images_of_unseen_experts(run_job: JobRunner) -> None:
    with pytest.raises(UserError, match=r"running_statistics=pooled: .* choose averaged"):
        run_job("job=transfer", "merge.running_statistics=pooled")
