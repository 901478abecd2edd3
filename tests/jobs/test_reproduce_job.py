"""job=reproduce: the same numbers again, and every difference named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statsmerging.jobs import reproduce
from statsmerging.records.comparison import differences, same_bits_promised
from statsmerging.records.errors import IncompleteError, UserError
from statsmerging.records.files import read_json, write_json
from tests.conftest import JobRunner, run_in_process


@pytest.fixture
def finished(run_job: JobRunner, tmp_path: Path) -> Path:
    run_job("joint=false")
    return tmp_path / "run"


@pytest.fixture
def again(finished: Path, shared_cache: Path, tmp_path: Path) -> Any:
    """Reproduce the run and return the comparison."""

    def reproduce(*overrides: str) -> dict[str, Any]:
        arguments = ["job=reproduce", f"job.run={finished}", f"cache={shared_cache}", *overrides]
        run_in_process(arguments, tmp_path / "reproduced")
        comparison: dict[str, Any] = read_json(tmp_path / "reproduced" / "comparison.json")
        return comparison

    return reproduce


def test_every_number_is_the_same_also_from_an_empty_cache(again: Any, tmp_path: Path) -> None:
    for overrides in ((), (f"cache={tmp_path}/empty",)):
        comparison = again(*overrides)
        assert comparison["reproduced"]
        assert comparison["numbers"] == []
        assert comparison["circumstances"] == []
    # Nothing of the comparison is taken from the first run's directory.
    repeated = pd.read_parquet(tmp_path / "reproduced" / "again" / "coefficients.parquet")
    assert repeated.equals(pd.read_parquet(tmp_path / "run" / "coefficients.parquet"))


@pytest.mark.parametrize(("change", "passes"), [(0.005, True), (0.05, False)])
def test_another_number_is_named_and_judged(
    again: Any, finished: Path, tmp_path: Path, change: float, passes: bool
) -> None:
    results = read_json(finished / "results.json")
    results["methods"]["stats_merging"]["accuracy"]["parity"] += change
    write_json(finished / "results.json", results)
    manifest = read_json(finished / "manifest.json")
    manifest["packages"]["torch"] = "1.0"
    write_json(finished / "manifest.json", manifest)
    if passes:
        assert again()["reproduced"]
    else:
        with pytest.raises(IncompleteError, match="was not reproduced: 1 numbers differ"):
            again()
    comparison = read_json(tmp_path / "reproduced" / "comparison.json")
    assert [item["name"] for item in comparison["circumstances"]] == ["package torch"]
    assert [item["name"] for item in comparison["numbers"]] == [
        "methods.stats_merging.accuracy.parity"
    ]


def test_with_everything_the_same_no_number_may_differ(
    again: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = read_json(finished / "results.json")
    results["methods"]["simple_average"]["average"] += 1e-9
    write_json(finished / "results.json", results)
    monkeypatch.setattr(reproduce, "same_bits_promised", lambda before, after: True)
    with pytest.raises(IncompleteError, match="none may"):
        again()


def test_a_changed_config_and_an_unfinished_run_are_refused(again: Any, finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    with pytest.raises(UserError, match="was changed since"):
        again()
    (finished / "config.yaml").write_text(text)
    (finished / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"is no finished run: it has no manifest\.json"):
        again()


@pytest.mark.parametrize("part", ["code", "packages", "hardware", "weights", "data"])
def test_the_promise_needs_the_same_circumstances(part: str) -> None:
    manifest: dict[str, Any] = {
        "code": {"commit": "a", "modified": False},
        "packages": {"torch": "2"},
        "hardware": {"cpu": "x", "platform": "Linux 1"},
        "weights": {"pretrained": "1"},
        "data": {"mnist/test": "1"},
    }
    other = {**manifest, "hardware": {"cpu": "x", "platform": "Linux 2"}}
    assert same_bits_promised(manifest, other)
    key = next(iter(manifest[part]))
    changed = {**manifest, part: {**manifest[part], key: "other"}}
    assert not same_bits_promised(manifest, changed)
    assert not same_bits_promised(manifest, {**manifest, "code": {"commit": "a", "modified": True}})


def test_differences_name_every_leaf() -> None:
    before = {"a": {"b": 1, "c": 2.0}, "gone": 1}
    after = {"a": {"b": 1, "c": 2.5}, "new": "x"}
    found = {item.name: item.size for item in differences(before, after)}
    assert found == {"a.c": 0.5, "gone": float("inf"), "new": float("inf")}
