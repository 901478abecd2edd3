"""What the loggers hold of a run, read back from their files; and that every one is closed."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from lightning.pytorch.utilities import rank_zero_only

from statsmerging.app.loggers.run_log import LoggedRun
from statsmerging.errors import UserError
from statsmerging.learning.data_module import UnlabeledBatch
from statsmerging.learning.module import StatsMerging
from statsmerging.report.groups import flatten
from statsmerging.runs.directory import RunDirectory
from statsmerging.store.files import read_json
from tests.app import test_command_line as shell
from tests.app.test_configs import composed
from tests.app.wandb_files import WandbRun, offline_runs
from tests.conftest import ROOT, JobRunner

#: Of two learned methods no curve may overwrite the other's.
LEARNED = ["stats_merging", "singular_wise"]
METHODS = "method=[simple_average,stats_merging,singular_wise]"

#: Of each learned method, and of singular directions.
PICTURES = [*(f"coefficients/{method}" for method in LEARNED), "directions/singular_wise"]
ALL = "logger=[csv,wandb,tensorboard,mlflow]"

#: Made up; no file of a run may hold it.
API_KEY = "0123456789abcdef0123456789abcdef01234567"
PASSWORD, HOST = "wordofpass", "host-of-the-user"

Curve = dict[int, float]


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a working folder in which nothing may appear, and a key."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, which take seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow(tmp_path: Path, empty_database: Path) -> list[str]:
    """Overrides that give MLflow a store of its own."""
    (tmp_path / "store").mkdir()
    shutil.copy(empty_database, tmp_path / "store")
    return [
        f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/store/mlflow.db",
        f"logger.mlflow.artifacts={tmp_path}/store/artifacts",
    ]


def test_all_loggers_hold_the_curves_and_numbers_of_one_run(
    run_job: JobRunner, tmp_path: Path, mlflow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    uri = f"logger.mlflow.tracking_uri=postgresql://me:{PASSWORD}@host/runs"
    monkeypatch.setattr(sys, "argv", ["run.py", uri])
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    before = dict(os.environ)
    results = run_job(METHODS, ALL, *mlflow, "logger.wandb.upload_model=true")
    assert dict(os.environ) == before
    curves = {method: csv_curve(directory, method) for method in LEARNED}
    numbers = expected_numbers(results)
    assert [list(curve) for curve in curves.values()] == [list(range(6))] * 2
    assert curves[LEARNED[0]] != curves[LEARNED[1]]

    (wandb,) = offline_runs(directory)
    check_wandb(wandb, directory, results["run_hash"])
    assert numbers.items() <= wandb.summary.items()
    assert wandb_curves(wandb) == curves

    scalars = tensorboard_scalars(directory)
    assert {name: scalars[name][0] for name in numbers} == pytest.approx(numbers)
    for method in LEARNED:
        assert scalars[f"{method}/loss"] == pytest.approx(curves[method])

    client, (logged,) = mlflow_runs(tmp_path)
    assert {name: logged.data.metrics[name] for name in numbers} == numbers
    for method in LEARNED:
        assert mlflow_curve(client, logged, method) == pytest.approx(curves[method])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["trainer.steps"] == "6"
    files = {file.name for file in (tmp_path / "store").rglob("*") if file.is_file()}
    assert files - {f"{Path(name).name}.png" for name in PICTURES} == {
        *(".mlflow.db.lock", "mlflow.db", "results.md")
    }
    for name in PICTURES:
        assert list((tmp_path / "store").rglob(f"{name}.png"))

    for place in ("home", "here"):
        assert list((tmp_path / place).iterdir()) == []
    for file in directory.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        for secret in (API_KEY, PASSWORD, HOST):
            assert secret.encode() not in content, file


def check_wandb(run: WandbRun, directory: Path, run_hash: str) -> None:
    """All that a server would be told besides numbers."""
    assert run.facts.run_id == run.facts.display_name == run_hash
    assert run.facts.project == "statsmerging"
    assert run.facts.run_group == "folder"
    assert run.facts.job_type == "merge"
    assert list(run.facts.tags) == ["folder", "micro_vit"]
    # Sections without an entry are not sent.
    assert dict(flatten(run.config)) == dict(
        flatten(read_json(directory / "manifest.json")["config"])
    )
    assert run.exit_code == 0
    assert run.artifacts[f"merged-{run_hash}"] == ["merged.safetensors"]
    (shown,) = (row for row in run.history if "results/path" in row)
    table = read_json(run.path.parent / "files" / shown["results/path"])
    assert table["columns"][:4] == ["method", "needs", "parity", "size"]
    assert [row[0] for row in table["data"]][:3] == ["Pre-trained", "Individual", "Simple average"]
    for name in PICTURES:
        picture = run.path.parent / "files" / shown[f"{name}/path"]
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_two_runs_in_one_process_are_two_and_one_shown_again_is_none(
    run_job: JobRunner, tmp_path: Path
) -> None:
    results = [
        run_job("job=finetune", "logger=wandb", f"seed={seed}", directory=tmp_path / str(seed))
        for seed in (0, 1)
    ]
    run_job("job=finetune", "logger=wandb", "seed=1", directory=tmp_path / "1")
    for seed, result in enumerate(results):
        (run,) = offline_runs(tmp_path / str(seed))
        assert run.facts.run_id == result["run_hash"]
        assert run.config["seed"] == seed
        assert run.summary["average/individual"] == result["methods"]["individual"]["average"]
        # Files of the table's artifact, which W&B keeps apart from the run's.
        assert any((tmp_path / str(seed) / "wandb" / "data").rglob("tmp*"))


@pytest.mark.parametrize(
    ("error", "raised", "status", "ended"),
    [
        (RuntimeError("broken"), RuntimeError, 1, "FAILED"),
        (UserError("a mistake"), UserError, 2, "FAILED"),
        (KeyboardInterrupt(), SystemExit, 130, "KILLED"),
    ],
)
def test_a_failing_job_closes_its_loggers_with_its_status(
    run_job: JobRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mlflow: list[str],
    error: BaseException,
    raised: type[BaseException],
    status: int,
    ended: str,
) -> None:
    fail_in_step(monkeypatch, 4, error)
    with pytest.raises(raised):
        run_job("method=stats_merging", ALL, *mlflow)
    (run,) = offline_runs(tmp_path / "run")
    assert run.exit_code == status
    assert list(run.curve("stats_merging/loss")) == [0, 1, 2]
    _, (logged,) = mlflow_runs(tmp_path)
    assert logged.info.status == ended
    assert "WANDB_DIR" not in os.environ


def test_a_killed_run_that_continues_keeps_all_curves(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow: list[str]
) -> None:
    directory = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_in_step(patch, 4, KeyboardInterrupt())
        with pytest.raises(SystemExit):
            run_job("method=stats_merging", ALL, *mlflow)
    run_job("method=stats_merging", ALL, *mlflow)
    name = "stats_merging"
    # Two steps were in the checkpoint; the third was taken twice, alike.
    first, second = csv_curve(directory, name, 0), csv_curve(directory, name, 1)
    assert list(first) == [0, 1, 2]
    assert list(second) == [2, 3, 4, 5]
    assert first[2] == second[2]

    lives = offline_runs(directory)
    assert [run.curve(f"{name}/loss") for run in lives] == [first, second]
    assert lives[0].facts.run_id == lives[1].facts.run_id
    assert tensorboard_scalars(directory)[f"{name}/loss"] == pytest.approx(first | second)
    client, (logged,) = mlflow_runs(tmp_path)
    assert mlflow_curve(client, logged, name) == pytest.approx(first | second)
    assert logged.info.status == "FINISHED"


def test_several_processes_log_each_step_once(
    run_job: JobRunner, tmp_path: Path, mlflow: list[str]
) -> None:
    directory = tmp_path / "run"
    run_job("method=stats_merging", ALL, *mlflow, "trainer.devices=2")
    curve = csv_curve(directory, "stats_merging")
    assert list(curve) == list(range(6))
    (wandb,) = offline_runs(directory)
    assert [row["learning_step"] for row in wandb.history if "learning_step" in row] == list(curve)
    assert wandb.curve("stats_merging/loss") == curve
    assert wandb.exit_code == 0
    assert tensorboard_scalars(directory)["stats_merging/loss"] == pytest.approx(curve)
    client, (logged,) = mlflow_runs(tmp_path)
    assert mlflow_curve(client, logged, "stats_merging") == pytest.approx(curve)


def test_several_processes_log_nothing_to_a_disabled_wandb(
    run_job: JobRunner, tmp_path: Path
) -> None:
    run_job(
        "method=stats_merging", "logger=wandb", "logger.wandb.mode=disabled", "trainer.devices=2"
    )
    assert (tmp_path / "run" / "results.json").exists()
    assert not list((tmp_path / "run").rglob("*.wandb"))


def test_none_logs_nothing(run_job: JobRunner, tmp_path: Path) -> None:
    run_job("method=stats_merging", "logger=none")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "results.json" in names
    assert not names & {"learning_curves", "wandb", "tensorboard"}


@pytest.mark.parametrize("package", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_computed(
    run_job: JobRunner, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    ours = f"statsmerging.app.loggers.{package}"
    for module in [name for name in sys.modules if name.split(".")[0] == package or name == ours]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    expected = rf"logger={package}: the package {package} is missing: pip install 'statsmerging\["
    with pytest.raises(UserError, match=expected):
        run_job(f"logger={package}", "suite.first=9")


def test_online_without_a_key_is_one_line(
    run_job: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match=r"mode=online: No API key configured.*; mode=offline"):
        run_job("logger=wandb", "logger.wandb.mode=online", "logger.wandb.init_timeout=1")


@pytest.mark.parametrize("devices", [1, 2])
def test_ranks_of_whoever_started_the_run_are_not_its_own(
    run_job: JobRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, devices: int
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.setenv(name, "3")
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # Lightning reads the variables on its import
    run_job("method=stats_merging", "logger=csv", f"trainer.devices={devices}")
    (curves,) = (tmp_path / "run" / "learning_curves").rglob("metrics.csv")
    assert len(pd.read_csv(curves)) == 6


@pytest.fixture
def command() -> Iterator[list[str]]:
    """Overrides as Hydra knows them while it runs a command."""
    overrides = ["experiment=clip_eight", "logger=wandb", "logger.wandb.entity=team", "seed=3"]
    before = Singleton.get_state()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    yield overrides
    Singleton.set_state(before)


def test_a_command_names_its_run_and_its_group(command: list[str], tmp_path: Path) -> None:
    config = composed(*command)
    run = LoggedRun(config, RunDirectory(tmp_path / "run", config.model_dump(mode="json")))
    assert run.name == "experiment=clip_eight,seed=3"
    assert run.group == "clip_eight"


def fail_in_step(patch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Make the learning step of this number (counted from 1) raise the error."""
    step = StatsMerging.training_step
    steps = 0

    def failing(self: StatsMerging, batch: UnlabeledBatch) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == number:
            raise error
        return step(self, batch)

    patch.setattr(StatsMerging, "training_step", failing)


def expected_numbers(results: dict[str, Any]) -> dict[str, float]:
    """The numbers of ``results.json``, named as docs/wandb.md says; every leaf is one of them."""
    rows = results["methods"]
    numbers: dict[str, float] = {"seed": results["seed"]}
    numbers |= {f"held_out/{task}": count for task, count in results["held_out"].items()}
    for task, quality in results["teachers"].items():
        numbers |= {f"teachers/{task}/{name}": value for name, value in quality.items()}
    for task, cosines in results["task_vector_cosines"].items():
        numbers |= {f"task_vector_cosines/{task}/{other}": cos for other, cos in cosines.items()}
    for method, row in rows.items():
        for name in ("average", "normalised_average", "teacher_agreement"):
            numbers |= {f"{name}/{method}": row[name]} if name in row else {}
        for name in ("accuracy", "n", "parameters"):
            numbers |= {
                f"{name}/{method}/{key}": value
                for key, value in row.get(name, {}).items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
        if "choice" in row:
            numbers[f"choice/{method}/value"] = row["choice"]["value"]
            del row["choice"]["tried"]  # what else was tried is no number of the row
        for kind, moved in row.get("movement", {}).items():
            numbers |= {f"movement/{method}/{kind}/{name}": size for name, size in moved.items()}
        numbers |= {f"cost/{method}/{name}": count for name, count in row.get("cost", {}).items()}
    for method, measured in results["measured"].items():
        for name in ("seconds", "memory"):
            numbers |= {f"measured/{method}/{name}/{k}": v for k, v in measured[name].items()}
    told = [leaf for leaf in leaves(results) if not isinstance(leaf, bool)]
    assert len(numbers) == sum(1 for leaf in told if isinstance(leaf, int | float))
    return numbers


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from leaves(entry)
    else:
        yield value


def csv_curve(directory: Path, method: str, version: int = 0) -> Curve:
    """Learning step → loss."""
    path = directory / "learning_curves" / method / f"version_{version}" / "metrics.csv"
    frame = pd.read_csv(path)
    return dict(zip(frame["step"].tolist(), frame["loss"].tolist(), strict=True))


def wandb_curves(run: WandbRun) -> dict[str, Curve]:
    return {method: run.curve(f"{method}/loss") for method in LEARNED}


def tensorboard_scalars(directory: Path) -> dict[str, Curve]:
    """Tag → step → value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }


def mlflow_runs(tmp_path: Path) -> tuple[Any, list[Any]]:
    """The client of the test's store, and all runs in it."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/store/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, client.search_runs(experiments)


def mlflow_curve(client: Any, run: Any, method: str) -> Curve:
    history = client.get_metric_history(run.info.run_id, f"{method}/loss")
    return {metric.step: metric.value for metric in history}


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_rank_of_something_around_the_job_silences_no_logger(
    small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    """As in ``srun``, where each of several processes is a job of its own."""
    monkeypatch.setenv(rank, "1")
    done = shell.command(*small_run, "logger=[csv,tensorboard]", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert len(csv_curve(tmp_path / "run", "stats_merging")) == 6  # one entry a step
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_jobs_side_by_side_make_one_mlflow_store(small_run: list[str], tmp_path: Path) -> None:
    store = [
        "logger=mlflow",
        f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/store/mlflow.db",
        f"logger.mlflow.artifacts={tmp_path}/store/artifacts",
    ]
    side_by_side = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4", "seed=0,1,2,3"]
    sweep = ["-m", *side_by_side, f"hydra.sweep.dir={tmp_path}/runs"]
    done = shell.command(*sweep, *small_run, *store)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 jobs done" in done.stdout


def test_wandb_disabled_by_its_older_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    settings = composed("logger=wandb").logger.wandb
    assert settings is not None
    assert settings.mode == "disabled"


@pytest.mark.parametrize(
    ("variable", "given", "mode"),
    [
        (None, [], "offline"),
        ("online", [], "online"),
        ("disabled", [], "disabled"),
        ("online", ["logger.wandb.mode=offline"], "offline"),
    ],
)
def test_the_mode_of_wandb(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, given: list[str], mode: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    settings = composed("logger=wandb", *given).logger.wandb
    assert settings is not None
    assert settings.mode == mode
