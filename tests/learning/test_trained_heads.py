"""SyMerge: heads that learn beside coefficients, on teachers' labels, and a stamp that says so."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from statsmerging.errors import UserError
from statsmerging.learning.module import StatsMerging
from statsmerging.scoring.scores import Candidate
from tests.app.test_configs import composed
from tests.conftest import JobRunner
from tests.kills import KilledError, killed_in_step

STAMP = "heads not frozen: trained the classification heads"


@pytest.mark.parametrize(
    ("overrides", "stamps"),
    [
        (["method=[symerge]"], [STAMP]),
        (["method=[symerge_frozen_heads]"], []),
        (["method=[free]", "+method.free.trains=heads"], [STAMP]),
        (["method=[released_code_frozen_heads,symerge]"], [STAMP]),
    ],
)
def test_trained_heads_are_stamped(overrides: list[str], stamps: list[str]) -> None:
    found = composed(*overrides).stamps
    assert [stamp for stamp in found if "heads" in stamp] == stamps


def test_heads_learn_beside_coefficients_or_alone(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: dict[str, Candidate] = {}
    of_state = Candidate.of_state

    def recording(name, zoo, *given, **options):  # type: ignore[no-untyped-def]
        scored[name] = of_state(name, zoo, *given, **options)
        return scored[name]

    monkeypatch.setattr(Candidate, "of_state", recording)
    results = run_job(
        "method=[symerge,symerge_frozen_heads,free]",
        "+method.free.trains=heads",
        "trainer.learning_rate=0.1",
    )
    assert results["stamps"] == [STAMP]
    heads = {
        row: scored[results["methods"][row]["title"]].zoo.experts["parity"].head.weight
        for row in ("symerge", "symerge_frozen_heads", "free")
    }
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    moved = table.groupby("method")["coefficient"].nunique() > 1
    assert moved.to_dict() == {"symerge": True, "symerge_frozen_heads": True, "free": False}
    start = heads["symerge_frozen_heads"]
    assert not (heads["symerge"] == start).all()
    assert not (heads["free"] == start).all()
    rows = results["methods"]
    count = {row: rows[row]["cost"]["parameters"] for row in heads}
    assert count["symerge"] == count["symerge_frozen_heads"] + count["free"]
    assert all(rows[row]["needs"] == "unlabeled images" for row in heads)
    assert not any("gradient" in warning for warning in results["warnings"])


def test_a_killed_run_continues_with_its_heads(run_job: JobRunner, tmp_path: Path) -> None:
    whole = run_job("method=[symerge]", directory=tmp_path / "whole")
    with killed_in_step(StatsMerging, 4), pytest.raises(KilledError):
        run_job("method=[symerge]", directory=tmp_path / "killed")
    again = run_job("method=[symerge]", directory=tmp_path / "killed")
    assert again["methods"] == whole["methods"]


@pytest.mark.parametrize(
    ("override", "needed"),
    [
        ("trainer.devices=2", "trainer.devices=1"),
        ("trainer.accumulate=per_task", "trainer.accumulate=joint"),
    ],
)
def test_a_trainer_that_would_leave_heads_out_is_refused(
    run_job: JobRunner, override: str, needed: str
) -> None:
    with pytest.raises(UserError, match=f"method symerge needs {needed}"):
        run_job("method=[symerge]", override)
