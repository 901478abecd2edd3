"""Runs under distribution shift, and the contact sheet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from statsmerging.errors import UserError
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.runs.results import RunResults
from tests.conftest import JobRunner

METHOD = "method=[stats_merging]"


def accuracies(results: dict[str, Any]) -> dict[str, float]:
    """Those of the pre-trained model: no expert of these small runs is better than guessing."""
    found: dict[str, float] = results["methods"]["pretrained"]["accuracy"]
    return found


def title(results: dict[str, Any]) -> str:
    return accuracy_content([RunResults.model_validate(results)]).title


def test_results_and_table_say_what_the_images_suffered(run_job: JobRunner, tmp_path: Path) -> None:
    clean = run_job(METHOD, directory=tmp_path / "clean")
    assert clean["corruption"] == "none"
    assert "none" not in title(clean)
    shifted = run_job(
        METHOD, "corruption=contrast", "corruption.severity=5", directory=tmp_path / "dark"
    )
    assert shifted["corruption"] == "contrast 5, cifar10_c, adapt_and_test"
    assert "folder · contrast 5, cifar10_c, adapt_and_test ·" in title(shifted)
    assert shifted["run_hash"] != clean["run_hash"]
    assert accuracies(shifted) != accuracies(clean)
    assert shifted["teachers"] != clean["teachers"]


def test_with_test_only_is_learned_what_is_learned_from_clean_images(
    run_job: JobRunner, tmp_path: Path
) -> None:
    clean = run_job(METHOD, directory=tmp_path / "clean")
    shifted = run_job(
        METHOD,
        "corruption=gaussian_noise",
        "corruption.severity=5",
        "corruption.constants=imagenet_c",
        "corruption.protocol=test_only",
        directory=tmp_path / "noisy",
    )
    tables = [tmp_path / name / "coefficients.parquet" for name in ("clean", "noisy")]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    assert shifted["teachers"] == clean["teachers"]
    assert accuracies(shifted) != accuracies(clean)
    # That test images are harder than learning images is no sign of a mistake here.
    assert shifted["warnings"] == []


def test_published_numbers_are_of_clean_images(run_job: JobRunner) -> None:
    with pytest.raises(UserError, match="corruption=spatter: job=check is about clean images"):
        run_job("job=check", "corruption=spatter")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["corruption.kind=fog"], "corruption.kind=fog: input should be 'none', 'motion_blur'"),
        (["corruption.severity=6"], "corruption.severity=6: input should be less than or equal"),
        (["corruption.tasks=[colour]"], "corruption.tasks: the suite has no task colour; it has"),
    ],
)
def test_mistakes_are_one_clear_line(
    run_job: JobRunner, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        run_job(*overrides)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_the_contact_sheet_shows_kinds_tasks_and_severities(
    run_job: JobRunner, tmp_path: Path
) -> None:
    run_job("job=corruptions", directory=tmp_path / "all")
    run_job("job=corruptions", "corruption=contrast", directory=tmp_path / "one")
    sizes = {}
    for name in ("all", "one"):
        with Image.open(tmp_path / name / "corruptions.png") as sheet:
            sizes[name] = sheet.size
        assert (tmp_path / name / "corruptions.pdf").read_bytes().startswith(b"%PDF")
    assert sizes["all"][0] == sizes["one"][0]
    assert sizes["all"][1] > 4 * sizes["one"][1]
