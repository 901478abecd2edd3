"""Coefficients for experts the learner has not seen."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from statsmerging.app.setup import ScoredRun
from statsmerging.errors import UserError
from statsmerging.runs.results import MethodResult
from statsmerging.scoring import diagnostics
from statsmerging.scoring.scores import Candidate, Scorer
from tests.conftest import JobRunner, run_in_process, write_suite

METHODS = "method=[task_arithmetic,constant_input,free,stats_merging]"


@pytest.fixture
def transfer(small_run: list[str], tmp_path: Path) -> JobRunner:
    """The job on four tasks: two teach, two are predicted for."""
    root = write_suite(tmp_path / "suite", 48)
    for task in ("parity", "size"):
        (root / f"{task}_again").symlink_to(root / task)
    overrides = [*small_run, "job=transfer", METHODS, f"suite.root={root}"]
    unseen = "suite.unseen=[parity_again,size_again]"
    return lambda *more: run_in_process([*overrides, unseen, *more], tmp_path / "run")


@pytest.mark.parametrize("density", ["null", "0.2"])
def test_unseen_experts_that_are_the_seen_ones_get_their_coefficients(
    transfer: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, density: str
) -> None:
    """The unseen tasks are the seen ones under other names: prediction equals learning."""
    scored: list[Candidate] = []
    score = Scorer.score

    def recording(self: Scorer, candidate: Candidate) -> MethodResult:
        scored.append(candidate)
        return score(self, candidate)

    monkeypatch.setattr(Scorer, "score", recording)
    results = transfer(f"method.stats_merging.density={density}")
    assert list(results["methods"]) == [
        "pretrained",
        "individual",
        "task_arithmetic",
        "task_arithmetic_tuned",
        "constant_input",
        "constant_input_anew",
        "free_anew",
        "stats_merging",
        "stats_merging_anew",
    ]
    for row in results["methods"].values():
        assert list(row["accuracy"].values()) == list(row["unseen"]["accuracy"].values())
    assert len(scored) == len(results["methods"])
    for candidate in scored:
        for task in ("parity", "size"):
            again = candidate.weights[f"{task}_again"]
            torch.testing.assert_close(dict(candidate.weights[task]), dict(again))
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    for method, frame in table.groupby("method"):
        wide = frame.pivot(index="layer", columns="task", values="coefficient")
        for task in ("parity", "size"):
            pd.testing.assert_series_equal(
                wide[task], wide[f"{task}_again"], check_names=False, obj=str(method)
            )


def test_unseen_experts_get_the_coefficients_of_equal_directions(
    transfer: JobRunner, tmp_path: Path
) -> None:
    """The unseen tasks are the seen ones under other names; a table predicts nothing."""
    results = transfer("method=[singular_wise,free]", "method.free.granularity=singular_wise")
    assert list(results["methods"]) == [
        "pretrained",
        "individual",
        "singular_wise",
        "singular_wise_anew",
        "free_anew",
    ]
    for row in results["methods"].values():
        assert list(row["accuracy"].values()) == list(row["unseen"]["accuracy"].values())
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    for method, frame in table.groupby("method"):
        wide = frame.pivot(index=["layer", "direction"], columns="task", values="coefficient")
        assert not wide.isna().any(axis=None)
        for task in ("parity", "size"):
            pd.testing.assert_series_equal(
                wide[task], wide[f"{task}_again"], check_names=False, obj=str(method)
            )


def test_two_unseen_tasks_are_needed(transfer: JobRunner) -> None:
    with pytest.raises(UserError, match="at least two unseen tasks"):
        transfer("suite.unseen=[size_again]", "suite.tasks=[parity,size]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=[emr]"], "method emr: job=transfer needs methods that give one model"),
        (["method=[released_code]"], "released_code: job=transfer needs statistics of single exp"),
        (["method.free.tune=[0.1]"], "method.free.tune: job=transfer tunes no learning rate"),
    ],
)
def test_methods_without_a_place_are_refused_before_anything_is_learned(
    transfer: JobRunner, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr(ScoredRun, "prepare", None)
    with pytest.raises(UserError, match=message):
        transfer(*overrides)


def test_what_looks_wrong_is_recorded(
    transfer: JobRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both sets of experts are the same: the gap is 0, which is made to count as one."""
    monkeypatch.setattr(diagnostics, "GAP", -0.01)
    monkeypatch.setattr(diagnostics, "NEAR_IDENTICAL", -1.0)
    methods = "method=[simple_average,stats_merging]"
    warnings = transfer(methods, "trainer.learning_rate=0", "trainer.steps=2")["warnings"]
    for beginning in (
        *(f"{name} keeps" for name in ("simple_average", "stats_merging", "stats_merging_anew")),
        *(f"{name}: all coefficients" for name in ("stats_merging", "stats_merging_anew")),
        "the task vectors of parity and size",
        "the task vectors of parity_again and size_again",
    ):
        (line,) = (line for line in warnings if line.startswith(beginning))
        assert line in caplog.messages
