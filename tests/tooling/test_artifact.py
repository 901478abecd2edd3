"""Every command and claim of docs/artifact.md, at reduced size."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from tests.app.test_command_line import command
from tests.conftest import ROOT


class Section(NamedTuple):
    """Commands, and the claims that the last of them prints: first and second method, numbers."""

    title: str
    commands: list[list[str]]
    claims: list[tuple[str, str, list[float]]]


def sections() -> list[Section]:
    text = (ROOT / "docs" / "artifact.md").read_text()
    found = []
    for part in re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]:
        (block,) = re.findall(r"```bash\n(.*?)```", part, re.DOTALL)
        rows = re.findall(r"\| `(\w+)` − `(\w+)` \| (.*?) \|", part)
        claims = [
            (first, second, [float(number) for number in re.findall(r"[-+][\d.]+", numbers)])
            for first, second, numbers in rows
        ]
        lines = [shlex.split(line) for line in block.splitlines()]
        assert all(line[:2] == ["python", "run.py"] for line in lines)
        found.append(Section(part.splitlines()[0], [line[2:] for line in lines], claims))
    return found


SECTIONS = sections()
WITH_CLAIMS = [section for section in SECTIONS if section.claims]


#: In place of the real tasks and their network.
SMALL_SUITE = ("suite.tasks=null", "backbone=micro_vit", "backbone.image_size=32")


@pytest.fixture
def reduced(small_run: list[str]) -> list[str]:
    """Overrides behind those of a command: a few steps, two small tasks, two zoos or seeds."""
    return [*small_run, "suite.unseen=[]", "logger=none", "threads=1"]


def run_reduced(arguments: list[str], reduced: list[str], folder: Path) -> str:
    """Run a command of the page that makes runs; what it says."""
    kept = [each for each in arguments if not each.endswith(("=DIR", "=FILE"))]
    repeated = [each.replace("seed=0,1,2", "seed=0,1") for each in kept]
    if any("singular_wise]" in each or each == "experiment=singular_wise" for each in kept):
        repeated = [each for each in repeated if not each.startswith("zoo.seed")] + ["zoo.seed=0,1"]
    real = any("mini_eight" in each for each in kept)
    suite = [*SMALL_SUITE, "suite.name=mini_eight"] if real else ["suite.name=embedded"]
    return run(*repeated, *reduced, *suite, folder=folder)


def run(*arguments: str, folder: Path) -> str:
    done = command(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("section", WITH_CLAIMS, ids=lambda section: section.title)
def test_a_claim_has_a_command_that_prints_it(
    section: Section, reduced: list[str], tmp_path: Path
) -> None:
    make, compare = section.commands
    run_reduced(make, reduced, tmp_path)
    run(*compare, f"hydra.run.dir={tmp_path}/comparison", folder=tmp_path)
    frame = pd.read_csv(tmp_path / "comparison" / "comparison.csv")
    averages = frame[frame["task"].isna()].set_index(["method", "against"])
    for first, second, (difference, low, high) in section.claims:
        assert low <= difference <= high
        assert low > 0  # what the page claims is told apart from chance
        printed = averages.loc[[(first, second)]].iloc[0]
        assert printed["low"] <= printed["difference"] <= printed["high"]


def test_a_run_is_made_again(reduced: list[str], tmp_path: Path) -> None:
    (section,) = [section for section in SECTIONS if not section.claims]
    (again,) = section.commands
    # Other tests' experts may have been fine-tuned by another number of threads.
    own_cache = [*reduced, f"cache={tmp_path}/cache"]
    run_reduced(["experiment=demo", "method=[ties,stats_merging]"], own_cache, tmp_path)
    (run,) = (tmp_path / "outputs" / "merge").iterdir()
    said = run_reduced(
        [each.replace("outputs/merge/RUN", str(run)) for each in again], [], tmp_path
    )
    (promised,) = re.findall(r"`(every number[^`]*)`", (ROOT / "docs" / "artifact.md").read_text())
    assert promised in said
