"""job=check: counts, splits and scores beside what was published."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from statsmerging.errors import IncompleteError
from statsmerging.jobs import check
from statsmerging.runs.published import PublishedRow
from statsmerging.store.files import read_json
from tests.conftest import JobRunner


def test_nothing_published_is_said(run_job: JobRunner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        results = run_job("job=check")
    assert "nothing is published for zoo=finetuned" in caplog.text
    assert "as they should be" in caplog.text
    assert set(results["methods"]) == {"pretrained", "individual"}


def test_cells_and_counts_that_are_off_end_with_status_1(
    run_job: JobRunner,
    suite_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    score = run_job("job=check", directory=tmp_path / "first")["methods"]["individual"]["accuracy"]
    cells = {"parity": 100 * score["parity"] + 5, "size": 100 * score["size"]}
    rows = [
        PublishedRow("individual", "a table", cells, None),
        PublishedRow("a merge with an average alone", "a table", {}, 94.5),
    ]
    monkeypatch.setattr(check, "published_rows", lambda zoo, backbone: rows)
    catalogue = "{parity:{id:a/b,counts:{test:47},gigabytes:1},size:{id:a/c,gigabytes:1}}"
    with pytest.raises(IncompleteError):
        run_job("job=check", "suite.kind=hub", f"+suite.catalogue={catalogue}")
    results = read_json(tmp_path / "run" / "results.json")
    assert results["counts"] == ["parity: 48 test images, published are 47"]
    assert [cell.split(":")[0] for cell in results["off_published"]] == ["individual on parity"]
    assert "usual causes: the order of the classes" in caplog.text
