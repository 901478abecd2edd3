"""Files, cache, hashes, manifest and run directories."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statsmerging.errors import UserError
from statsmerging.runs.directory import RunDirectory, remove_traces, run_hash
from statsmerging.runs.manifest import code_version, packages, typed_command
from statsmerging.runs.results import MethodResult, TaskAccuracy, run_results
from statsmerging.store import locks
from statsmerging.store.cache import Cache
from statsmerging.store.files import atomic_path, read_json, write_json
from statsmerging.store.hashing import json_sha256, state_sha256

CONFIG: dict[str, Any] = {"seed": 0, "cache": "here", "zoo": {"seed": 1}, "logger": {"csv": {}}}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})

    def write_half() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert read_json(path) == {"a": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def _compute_slowly(root: Path) -> None:
    def write(path: Path) -> None:
        (root / f"computed-{os.getpid()}").touch()
        time.sleep(0.3)
        path.write_text("content")

    assert Cache(root).file("kind", "entry", write).read_text() == "content"


def test_a_long_wait_for_another_process_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "SILENT_WAIT", 0.01)
    context = multiprocessing.get_context("fork")
    begun, announced = context.Event(), context.Event()

    def write(path: Path) -> None:
        begun.set()
        announced.wait()
        path.write_text("content")

    worker = context.Process(target=Cache(tmp_path).file, args=("kind", "entry", write))
    worker.start()
    begun.wait()
    watcher = logging.Handler()
    monkeypatch.setattr(watcher, "emit", lambda record: announced.set())
    locks.log.addHandler(watcher)
    with caplog.at_level(logging.INFO):
        Cache(tmp_path).file("kind", "entry", lambda path: None)
    locks.log.removeHandler(watcher)
    worker.join()
    assert "waiting for another process that is making" in caplog.text
    assert (tmp_path / "kind" / "entry").read_text() == "content"


def test_two_processes_compute_an_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_compute_slowly, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(list(tmp_path.glob("computed-*"))) == 1


def test_state_hash_sees_values_names_shapes_and_types_but_no_order() -> None:
    state = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}
    same = {"b": torch.tensor(3), "a": torch.tensor([1.0, 2.0])}
    assert state_sha256(state) == state_sha256(same)
    others = [
        {**state, "a": torch.tensor([1.0, 2.5])},
        {"c": state["a"], "b": state["b"]},
        {**state, "a": torch.tensor([[1.0, 2.0]])},
        {**state, "a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
    ]
    hashes = {state_sha256(other) for other in others}
    assert len(hashes) == 4
    assert state_sha256(state) not in hashes


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=5))
def test_json_hash_ignores_the_order_of_keys(value: dict[str, int]) -> None:
    assert json_sha256(value) == json_sha256(dict(reversed(value.items())))


def test_run_hash_ignores_presentation_alone() -> None:
    assert run_hash(CONFIG) == run_hash({**CONFIG, "cache": "there", "logger": {}})
    assert run_hash(CONFIG) != run_hash({**CONFIG, "seed": 1})


@pytest.mark.parametrize("text", ["my: own\n", "- a list\n", "job: ${mine}\n", "\t{", ""])
def test_a_config_of_the_user_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    config = {"job": {"name": "merge"}, "suite": {}, "zoo": {}, "seed": 0}
    with pytest.raises(UserError, match=r"config\.yaml.*choose another hydra\.run\.dir"):  # noqa: SIM117
        with RunDirectory(tmp_path, config).exclusive():
            pass
    assert (tmp_path / "config.yaml").read_text() == text


def test_directory_refuses_to_overwrite_work_of_another_config(tmp_path: Path) -> None:
    first, second = RunDirectory(tmp_path, CONFIG), RunDirectory(tmp_path, {**CONFIG, "seed": 1})
    with second.exclusive():
        pass  # nothing was made yet, so nothing can be lost
    with first.exclusive():
        first.checkpoints.mkdir()
    refused = pytest.raises(UserError, match="already holds the results of another config")
    with refused, second.exclusive():
        pass
    with first.exclusive():
        pass


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "results.json",
        "manifest.json",
        "run.log",
        ".lock",
        "checkpoints",
        "checkpoints/ties.ckpt",
        "learning_curves/ties/version_0/metrics.csv",
        "tables",
        "figures/accuracy.png",
        "tensorboard",
        "wandb",
        "wandb/cache/wandb/logs",
        "again",
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "pipe"])
def test_nothing_is_written_through_a_way_out(tmp_path: Path, name: str, kind: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    if kind == "file":
        outside.write_text("mine")
    elif kind == "folder":
        outside.mkdir()
    refused = pytest.raises(
        UserError, match=r"is (a link|no regular file), .*another hydra\.run\.dir"
    )
    with refused, RunDirectory(tmp_path / "run", CONFIG).exclusive():
        pass
    assert outside.exists() == (kind in ("file", "folder"))
    assert (outside.read_text() == "mine") if kind == "file" else not outside.is_file()
    assert set(tmp_path.glob("run/*")) == {tmp_path / "run" / Path(name).parts[0]}


def test_links_that_wandb_makes_are_no_way_out(tmp_path: Path) -> None:
    run = tmp_path / "wandb" / "offline-run-1" / "logs"
    run.mkdir(parents=True)
    (tmp_path / "wandb" / "latest-run").symlink_to("offline-run-1")
    (run / "debug-core.log").symlink_to(tmp_path / "wandb" / "cache" / "core.log")
    with RunDirectory(tmp_path, CONFIG).exclusive():
        pass


def test_normalised_average_is_the_mean_ratio_to_the_individual_models() -> None:
    individual = MethodResult({"a": TaskAccuracy(0.8, 10), "b": TaskAccuracy(0.5, 20)})
    merged = MethodResult(
        {"a": TaskAccuracy(0.4, 10), "b": TaskAccuracy(0.5, 20)}, {"c": TaskAccuracy(0.3, 5)}
    )
    never_right = MethodResult(individual.seen, {"c": TaskAccuracy(0.0, 5)})
    facts: dict[str, Any] = {"suite": "toy", "backbone": "vit", "seed": 0, "stamps": []}
    results = run_results({"individual": never_right, "merged": merged}, **facts)
    rows = results.as_json()["methods"]
    assert rows["merged"]["average"] == pytest.approx(0.45)
    assert rows["merged"]["normalised_average"] == pytest.approx((0.5 + 1.0) / 2)
    assert rows["merged"]["n"] == {"a": 10, "b": 20}
    assert rows["merged"]["unseen"]["normalised_average"] is None


def test_manifest_knows_code_and_packages() -> None:
    assert code_version()["statsmerging"]
    assert packages()["torch"] == torch.__version__.split("+")[0]


@pytest.mark.parametrize(
    ("recorded", "typed"),
    [
        (["run.py", "-m", "seed=0,1"], "python run.py -m seed=0,1"),
        (["…/run.py", "suite.root=my images"], "python '…/run.py' 'suite.root=my images'"),
        (["/home/me/bin/statsmerging", "seed=1"], "statsmerging seed=1"),
    ],
)
def test_a_recorded_command_is_shown_as_one_types_it(recorded: list[str], typed: str) -> None:
    assert typed_command(recorded) == typed


def test_traces_are_what_the_run_made_itself(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "wandb").mkdir(parents=True)
    for name in ("config.yaml", "run.log", ".lock"):
        (run / name).write_text("")
    remove_traces(run, before={"wandb", "config.yaml"})
    assert {path.name for path in run.iterdir()} == {"wandb", "config.yaml"}
    (run / "results.json").write_text("")
    remove_traces(run, before=None)  # work, which nobody removes
    assert {path.name for path in run.iterdir()} == {"wandb", "config.yaml", "results.json"}
    (run / "results.json").unlink()
    remove_traces(run, before=None)
    assert not run.exists()
