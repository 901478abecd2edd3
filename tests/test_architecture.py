"""Floors: imports point downward, and the heart knows torch alone."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import get_args

import statsmerging
from statsmerging.jobs import schema
from statsmerging.merging import learner, statistics, task_vectors
from statsmerging.records.settings import Settings

PACKAGE = Path(statsmerging.__file__).parent

#: Height of each folder. On the ground floor `data` stands on `records`, `merging` on nothing.
FLOORS = {
    "merging": 0,
    "records": 0,
    "data": 1,
    "runs": 1,
    "zoo": 2,
    "report": 2,
    "distillation": 3,
    "evaluation": 3,
    "jobs": 4,
}


def imports(file: Path) -> set[str]:
    """Absolute names of all modules a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def test_imports_point_downward() -> None:
    for floor, height in FLOORS.items():
        for file in (PACKAGE / floor).rglob("*.py"):
            ours = {name.split(".")[1] for name in imports(file) if name.count("statsmerging.")}
            for other in ours - {floor}:
                assert FLOORS[other] < height, f"{file} imports {other}"


def test_every_folder_has_a_floor() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == set(FLOORS)


def test_the_heart_imports_torch_alone() -> None:
    for file in (PACKAGE / "merging").rglob("*.py"):
        foreign = {name.split(".")[0] for name in imports(file)} - set(sys.stdlib_module_names)
        assert foreign <= {"torch", "statsmerging"}, file


def test_config_and_heart_know_the_same_choices() -> None:
    """The schema repeats the heart's choices, because it must not import torch."""

    def choices(settings: type[Settings], name: str) -> tuple[object, ...]:
        return get_args(settings.model_fields[name].annotation)

    assert choices(schema.Config, "granularity") == get_args(learner.Granularity)
    assert choices(schema.Config, "coefficients") == get_args(learner.Link)
    assert choices(schema.LearnerSettings, "kind") == get_args(learner.LearnerKind)
    assert choices(schema.MergeSettings, "anchor") == get_args(task_vectors.Anchor)
    assert choices(schema.StatisticsSettings, "of") == get_args(statistics.Source)
    assert choices(schema.StatisticsSettings, "standardise") == get_args(statistics.Standardise)
    (features,) = choices(schema.StatisticsSettings, "features")
    assert get_args(features) == statistics.FEATURES
