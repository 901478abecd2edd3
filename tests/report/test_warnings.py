"""Warnings of many runs: those that differ in names and numbers alone are one."""

from __future__ import annotations

from statsmerging.report.groups import runs_by_setting
from statsmerging.report.warnings import warned
from statsmerging.store.files import read_json, write_json
from tests.report.conftest import WriteRun

LINES: tuple[list[str], ...] = (
    ["ties: the chosen scale=0.1 lies at the edge", "free sacrifices mnist (34 %)"],
    ["free: the chosen scale=2 lies at the edge"],
    ["free sacrifices mnist (31 %), sign_digits (2 %)", "something else"],
    [],
)


def test_kinds_stand_once_with_the_number_of_runs(write_run: WriteRun) -> None:
    for seed, lines in enumerate(LINES):
        runs = write_run(f"{seed}", {"individual": 0.9, "ties": 0.5, "free": 0.6}, seed)
        path = runs / f"{seed}" / "results.json"
        write_json(path, read_json(path) | {"warnings": lines})
    assert warned(runs_by_setting(runs)) == [
        ("ties: the chosen scale=0.1 lies at the edge", "(and 1 alike, in 2 of 4 runs)"),
        ("free sacrifices mnist (34 %)", "(and 1 alike, in 2 of 4 runs)"),
        ("something else", "(in 1 of 4 runs)"),
    ]
