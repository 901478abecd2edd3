"""A method that has labels or sharpness of its own, beside methods that have those of the run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
