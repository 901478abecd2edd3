"""The comparison view: its panels name what runs log, and W&B's package takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from statsmerging.errors import UserError
from statsmerging.report import wandb_view
from statsmerging.store.files import write_json

ROWS: dict[str, dict[str, Any]] = {
    "individual": {},
    "ties": {"parameters": {"scale": 1.0}},
    "stats_merging": {"parameters": {"learner": "shared"}},
}

NUMBERS: dict[str, Any] = {"accuracy": {"mnist": 0.5}, "average": 0.5, "normalised_average": 1.0}
ABOUT: dict[str, Any] = {"suite": "toy", "backbone": "vit", "seed": 0, "stamps": []}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs with different methods."""
    for name in ("ties", "stats_merging"):
        methods = {row: NUMBERS | ROWS[row] for row in ("individual", name)}
        write_json(tmp_path / "runs" / name / "results.json", {**ABOUT, "methods": methods})
    return tmp_path / "runs"


def test_dry_run_prints_the_panels_without_network_or_package(runs: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", wandb_view.__name__, str(runs), "--dry-run", "--group-by", "seed"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    grouped, single = json.loads(done.stdout)
    assert grouped["group_by"] == "seed"
    bars, curves = grouped["panels"]
    assert bars["kind"] == "bars"
    assert sorted(bars["keys"]) == ["average/individual", "average/stats_merging", "average/ties"]
    assert curves["keys"] == ["stats_merging/loss"]
    assert single["group_by"] is None
    assert [panel["keys"] for panel in single["panels"]] == [
        ["results"],
        ["coefficients/stats_merging"],
    ]


def test_directions_and_movements_have_panels(singular_run: Path) -> None:
    first, *_, single = wandb_view.sections(singular_run)
    bars = {panel.title: panel.keys for panel in first.panels if panel.kind == "bars"}
    assert bars["largest coefficient"] == [
        "movement/free/matrices/largest_coefficient",
        "movement/free/vectors/largest_coefficient",
    ]
    assert bars["movement of the weights"] == [
        "movement/free/matrices/relative",
        "movement/free/vectors/relative",
    ]
    shown = [panel.keys for panel in single.panels if panel.kind == "pictures"]
    assert shown == [["coefficients/free"], ["directions/free"]]


def test_costs_have_panels_of_the_methods_that_have_some(costed_runs: Path) -> None:
    first, *_ = wandb_view.sections(costed_runs)
    bars = {panel.title: panel.keys for panel in first.panels if panel.kind == "bars"}
    assert bars["forward passes, images"] == ["cost/free/forward_passes"]
    assert bars["learned parameters"] == ["cost/free/parameters"]


def test_a_folder_without_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wandb_view", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        wandb_view.main()
    assert capsys.readouterr().err == f"error: {tmp_path} holds no run (results.json)\n"


def test_a_missing_package_is_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.delitem(sys.modules, "wandb_workspaces.reports.v2", raising=False)
    with pytest.raises(UserError, match="wandb-workspaces is missing: pip install"):
        wandb_view.save(wandb_view.sections(runs), "project", None)


def test_the_package_takes_the_panels(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the server: the report is caught where it would be sent."""
    wr = pytest.importorskip("wandb_workspaces.reports.v2")
    sent = []

    def caught(report: Any) -> SimpleNamespace:
        sent.append(report)
        return SimpleNamespace(url="address")

    monkeypatch.setattr("wandb.Api", lambda: None)
    monkeypatch.setattr(wr.Report, "save", caught)
    assert wandb_view.save(wandb_view.sections(runs), "project", "team") == "address"
    grids = [block for block in sent[0].blocks if isinstance(block, wr.PanelGrid)]
    kinds = [[panel._to_model().view_type for panel in grid.panels] for grid in grids]
    assert kinds[0] == ["Bar Chart", "Run History Line Plot"]
    assert kinds[-1] == ["Weave", "Media Browser"]
    assert [list(grid.runsets[0].groupby) for grid in grids] == [
        *([f"config.{key}"] for key in wandb_view.GROUP_BY),
        [],
    ]
