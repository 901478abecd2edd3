"""A method that has labels or sharpness of its own, beside methods that have those of the run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import JobRunner


def coefficients(directory: Path, method: str) -> list[float]:
    table = pd.read_parquet(directory / "coefficients.parquet")
    return list(table[table["method"] == method]["coefficient"])


def test_they_replace_those_of_the_run_for_this_row_alone(
    run_job: JobRunner, tmp_path: Path
) -> None:
    own = ["method.samerging.relative_sharpness=false", "method.samerging.start=0.3"]
    run = ["labels=soft", "labels.temperature=2", "trainer.sharpness=0.07"]
    places = {name: tmp_path / name for name in ("beside", "as_run", "plain")}
    run_job("method=[free,samerging]", *own, directory=places["beside"])
    run_job("method=[free,samerging]", *own, *run, directory=places["as_run"])
    run_job("method=[free]", directory=places["plain"])
    of_run = coefficients(places["as_run"], "free")
    assert coefficients(places["as_run"], "samerging") == of_run
    assert coefficients(places["beside"], "samerging") == of_run
    assert coefficients(places["beside"], "free") == coefficients(places["plain"], "free")
    assert coefficients(places["beside"], "free") != of_run


def test_samerging_starts_at_the_pretrained_model(run_job: JobRunner, tmp_path: Path) -> None:
    rows = run_job("method=[samerging]", "trainer.learning_rate=0")["methods"]
    assert set(coefficients(tmp_path / "run", "samerging")) == {0.0}
    assert rows["samerging"]["accuracy"] == rows["pretrained"]["accuracy"]


def test_adarank_has_directions_of_its_own_and_starts_at_task_arithmetic(
    run_job: JobRunner, tmp_path: Path
) -> None:
    """Raw ones of full rank, whatever the run's are: with them the merge is exact."""
    rows = run_job(
        "method=[task_arithmetic,adarank,singular_wise]",
        "method.adarank.learning_rate=0",
        "method.task_arithmetic.scale=0.3",
        "spectral.rank=1",
    )["methods"]
    starts = set(coefficients(tmp_path / "run", "adarank"))
    assert list(starts) == [pytest.approx(0.3)]
    assert rows["adarank"]["accuracy"] == rows["task_arithmetic"]["accuracy"]
    found = [len(coefficients(tmp_path / "run", name)) for name in ("adarank", "singular_wise")]
    assert found[0] > 2 * found[1]


@pytest.mark.parametrize("method", ["adarank", "adarank_teacher_labels"])
def test_masks_leave_directions_out(run_job: JobRunner, tmp_path: Path, method: str) -> None:
    run_job(f"method=[{method}]", f"method.{method}.learning_rate=0.05")
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    assert (table["coefficient"] == 0).any()
    kept = table[table["coefficient"] != 0]
    assert (kept.groupby(["layer", "task"])["coefficient"].nunique() == 1).all()
