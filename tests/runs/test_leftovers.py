"""Deleting what incomplete runs left: all that a run writes, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from statsmerging.errors import UserError
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.leftovers import delete_leftovers, leftovers
from statsmerging.store.locks import HeldError
from tests.conftest import ROOT, run_in_process


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that was killed."""
    run = RunDirectory(tmp_path / "run", {"job": {"name": "merge"}, "suite": {}, "zoo": {}})
    with run.exclusive():
        run.checkpoints.mkdir()
        (run.checkpoints / "ties-0123456789abcdef.ckpt").write_bytes(b"half")
    return run


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "job", [["logger=[csv,tensorboard]"], ["job=finetune"]], ids=["merge", "finetune"]
)
def test_all_that_a_job_writes_is_its_own(
    small_run: list[str], job: list[str], tmp_path: Path
) -> None:
    """The patterns of what is deleted keep up with the jobs."""
    overrides = [*small_run, *job]
    run_in_process(overrides, tmp_path / "run")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    run = RunDirectory(tmp_path / "run", values)
    assert leftovers(run).foreign == []
    with pytest.raises(UserError, match="it is complete by now"):
        delete_leftovers(run)
    run.manifest.unlink()  # killed just before it was complete
    delete_leftovers(run)
    assert not run.path.exists()


def test_files_of_the_user_stay(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ties-1.ckpt").write_bytes(b"of another run")
    foreign = {"notes.txt", "checkpoints/best.txt", "plots/results.json"}
    for name in foreign:
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("mine")
    (run.path / "merged.safetensors").symlink_to(tmp_path / "elsewhere" / "ties-1.ckpt")
    (run.path / "learning_curves").symlink_to(tmp_path / "elsewhere")
    (run.path / "empty").mkdir()
    found = delete_leftovers(run)
    links = {"merged.safetensors", "learning_curves"}
    assert {file.relative_to(run.path).as_posix() for file in found.foreign} == foreign | links
    assert names(run.path) == foreign | links | {"checkpoints", "plots", "empty"}
    assert names(tmp_path / "elsewhere") == {"ties-1.ckpt"}


def test_a_directory_of_another_run_stays(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory(run.path, {"job": {"name": "merge"}, "suite": {}, "zoo": {}, "seed": 1})
    before = names(run.path)
    with pytest.raises(UserError, match=r"its config\.yaml is not this run's"):
        delete_leftovers(other)
    assert names(run.path) == before

    (tmp_path / "link").symlink_to(run.path)
    linked = RunDirectory(tmp_path / "link", {"job": {"name": "merge"}, "suite": {}, "zoo": {}})
    with pytest.raises(UserError, match="it is a link"):
        delete_leftovers(linked)
    assert names(run.path) == before


def test_a_running_run_stays(run: RunDirectory) -> None:
    before = names(run.path)
    with run.exclusive(), pytest.raises(HeldError):
        delete_leftovers(run)
    assert names(run.path) == before


def test_a_run_begins_anew_after_its_deletion(run: RunDirectory) -> None:
    delete_leftovers(run)
    assert not run.path.exists()
    with run.exclusive():
        assert names(run.path) == {"config.yaml", ".lock"}
