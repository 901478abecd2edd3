"""What a run learns from, what departs from the label-free protocol, and what is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from statsmerging.errors import UserError
from statsmerging.learning import labels as objectives
from statsmerging.learning import module
from statsmerging.learning.data_module import UnlabeledDataModule
from statsmerging.store.files import read_json
from tests.conftest import JobRunner, write_suite

ONLY = "method=[stats_merging]"


@pytest.fixture
def learning_sizes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Grows by the number of learning images of each task, learning by learning."""
    sizes: list[dict[str, int]] = []
    original = UnlabeledDataModule.__init__

    def recording(self, images, **options) -> None:  # type: ignore[no-untyped-def]
        sizes.append({task: len(tensor) for task, tensor in images.items()})
        original(self, images, **options)

    monkeypatch.setattr(UnlabeledDataModule, "__init__", recording)
    return sizes


def test_departures_stand_in_every_record(run_job: JobRunner, tmp_path: Path) -> None:
    results = run_job(ONLY, "labels=ground_truth", "learning.split=test")
    assert results["stamps"] == [
        "not label-free: learned from test images",
        "not label-free: learned from ground-truth labels",
    ]
    assert read_json(tmp_path / "run" / "manifest.json")["stamps"] == results["stamps"]


def test_a_method_that_is_given_labels_says_so(run_job: JobRunner) -> None:
    rows = run_job("method=[free,adamerging_task_wise]", "labels=ground_truth")["methods"]
    assert rows["free"]["needs"] == "labels"
    assert rows["adamerging_task_wise"]["needs"] == "unlabeled images"  # its own entropy


def test_ground_truth_is_what_is_learned_from_then(
    run_job: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets = []
    original = objectives.distillation_loss

    def recording(student, target, labels):  # type: ignore[no-untyped-def]
        targets.append(target)
        return original(student, target, labels)

    monkeypatch.setattr(module, "distillation_loss", recording)
    run_job(ONLY, "labels=ground_truth")
    assert all(set(target.unique().tolist()) == {0.0, 1.0} for target in targets)
    assert all((target.sum(dim=1) == 1).all() for target in targets)


def test_few_images_are_drawn_with_the_seed(
    run_job: JobRunner, tmp_path: Path, learning_sizes: list[dict[str, int]]
) -> None:
    losses = []
    for seed in (0, 1):
        directory = tmp_path / f"run{seed}"
        run_job(ONLY, "learning.images=3", f"learning.seed={seed}", directory=directory)
        losses.append(pd.read_parquet(directory / "coefficients.parquet")["coefficient"].to_list())
    assert learning_sizes == [{"parity": 3, "size": 3}] * 2
    assert losses[0] != losses[1]


def test_a_step_takes_at_most_all_images_of_the_largest_task(
    run_job: JobRunner, tmp_path: Path, learning_sizes: list[dict[str, int]]
) -> None:
    small, root = write_suite(tmp_path / "small", 12), write_suite(tmp_path / "suite", 48)
    shutil.rmtree(root / "parity")
    shutil.copytree(small / "parity", root / "parity")
    suite = (f"suite.root={root}", "trainer.steps=2", ONLY)
    with pytest.raises(UserError, match=r"images_per_task=49: at most 48, all .* of size"):
        run_job(*suite, "trainer.images_per_task=49")
    run_job(*suite, "trainer.images_per_task=48")  # parity repeats its images
    assert learning_sizes == [{"parity": 12 - 6, "size": 48 - 10}]  # without those held out


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_labels_over_the_classes_of_all_tasks(
    run_job: JobRunner, tmp_path: Path, kind: str
) -> None:
    """Two tasks of two classes each: what is learned differs from labels over two."""
    found = []
    for restrict in ("task", "none"):
        directory = tmp_path / restrict
        run_job(ONLY, f"labels={kind}", f"labels.restrict={restrict}", directory=directory)
        found.append(pd.read_parquet(directory / "coefficients.parquet")["coefficient"].to_list())
    assert found[0] != found[1]


def test_cleaned_ground_truth_is_refused(run_job: JobRunner) -> None:
    with pytest.raises(UserError, match=r"labels.*restrict=task"):
        run_job("labels=ground_truth", "labels.restrict=none")


def test_unknown_splits_and_too_many_tasks_are_refused(run_job: JobRunner) -> None:
    with pytest.raises(UserError, match=r"split=third: choose one of none \(suite.splits is empty"):
        run_job("suite.split=third")
    with pytest.raises(UserError, match=r"suite.first=3: the suite has 2 seen tasks"):
        run_job("suite.first=3")


def test_statistics_are_recorded_as_the_learner_saw_them(
    run_job: JobRunner, tmp_path: Path
) -> None:
    run_job(ONLY, "statistics=placed", "statistics.rank=2")
    statistics = pd.read_parquet(tmp_path / "run" / "statistics.parquet")
    coefficients = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    assert statistics[["layer", "task"]].equals(coefficients[["layer", "task"]])
    named = {"mean", "singular_value_2", "cosine", "relative_norm", "sign_agreement", "depth"}
    assert named < set(statistics.columns)
    assert "singular_value_3" not in statistics


def test_statistics_of_trimmed_task_vectors_are_recorded(
    run_job: JobRunner, tmp_path: Path
) -> None:
    """At density 0.2 a task vector keeps at most its largest fifth, and part of its norm."""
    norms = {}
    for density in ("null", "0.2"):
        run_job(
            ONLY,
            f"method.stats_merging.density={density}",
            "statistics.of=task_vectors",
            directory=tmp_path / density,
        )
        norms[density] = pd.read_parquet(tmp_path / density / "statistics.parquet")["magnitude"]
    assert (norms["0.2"] <= norms["null"]).all()
    assert norms["0.2"].sum() < 0.95 * norms["null"].sum()


def test_cosines_of_task_vectors_are_recorded(run_job: JobRunner) -> None:
    cosines = run_job(ONLY)["task_vector_cosines"]
    assert cosines["parity"]["parity"] == pytest.approx(1)
    assert cosines["parity"]["size"] == cosines["size"]["parity"]


def test_a_learner_that_does_not_move_is_noticed(run_job: JobRunner) -> None:
    warnings = run_job(ONLY, "trainer.learning_rate=0")["warnings"]
    assert any("all coefficients are 0.300" in line for line in warnings)


def test_identical_experts_are_noticed(run_job: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two experts that are one, and do not differ from where they started."""
    from statsmerging.merging.bank import TaskVectorBank

    original = TaskVectorBank.from_state_dicts.__func__  # type: ignore[attr-defined]

    def same(cls, /, pretrained, experts, **options):  # type: ignore[no-untyped-def]
        first = next(iter(experts.values()))
        return original(cls, pretrained, dict.fromkeys(experts, first), **options)

    monkeypatch.setattr(TaskVectorBank, "from_state_dicts", classmethod(same))
    warnings = run_job(ONLY)["warnings"]
    assert any("parity and size have a cosine of 1.000" in line for line in warnings)


def test_a_saturated_link_is_noticed(run_job: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coefficients that clamp holds at an end have no gradient."""
    from statsmerging.merging import learner

    monkeypatch.setitem(
        learner.LINKS, "clamp", lambda output, start: (output - start - 2).clamp(0, 1)
    )
    warnings = run_job(ONLY, "link=clamp")["warnings"]
    assert any("gradient is 0.0e+00 in the last step" in line for line in warnings)
