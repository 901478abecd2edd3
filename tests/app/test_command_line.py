"""What a user sees of a mistake: one line, status 2, nothing overwritten, and soon."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from statsmerging.app.mistakes import UNREAD
from statsmerging.errors import UserError
from tests.conftest import ROOT, JobRunner, run_in_process, write_suite


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["trainer.stepz=3"],
            "trainer.stepz: no such key; choose one of accumulate, devices, images_",
        ),
        (["nonsense=1"], "nonsense: no such key; choose one of accelerator, backbone, cache"),
        (["labels=medium"], "labels=medium: choose one of ground_truth, hard, "),
        (["logger=paper"], "logger=paper: choose one of csv, mlflow, none, tensorboard, wandb"),
        (["logger=[csv,paper]"], "logger=paper: choose one of csv, mlflow, none, tensorboard,"),
        (["logger=wandb", "logger.wandb.mode=on"], "logger.wandb.mode=on: input should be 'offl"),
        (
            ["job=dance"],
            "job=dance: choose one of bundle, cache, check, compare, convert, corruptions",
        ),
        (["granularity=row"], "granularity=row: input should be 'layer_wise', 'task_wise' or 's"),
        (["trainer.steps=-5"], "trainer.steps=-5: input should be greater than 0"),
        (["zoo.finetuning.batch_size=5000"], "zoo.finetuning.batch_size=5000: input should be le"),
        (["trainer.steps=7"], "trainer: steps=7 must be a multiple of steps_per_epoch=20"),
        (["seed=a"], "seed=a: input should be a valid integer"),
        (["seed=0,1"], "seed=0,1: several values are a sweep, python run.py -m seed=0,1; a list"),
        # An experiment is a sweep already, and the mistake is another.
        (
            ["experiment=table5_labels", "labels=hard,soft", "trainer.stepz=3"],
            "trainer.stepz: no such key; choose one of accumulate, devices, images_",
        ),
        (["seed", "1"], "seed: KEY=VALUE is expected; type seed=VALUE, without spaces around ="),
        (["suite.root=/a=b"], "suite.root=/a=b: a value with such characters needs quotes: 'suit"),
        (["suite.root=/bäume"], "suite.root=/bäume: a value with such characters needs quotes: 's"),
        (
            ["suite=folder"],
            "suite.root: a value is needed (folder with one subfolder per task); ty",
        ),
        (["backbone=timm"], "backbone.name: a value is needed (timm's name of the architecture);"),
        (["suite=folder", "suite.root=/nowhere"], "suite.root=/nowhere: path does not point to a"),
        (["backbone.weights=/no.safetensors"], "backbone.weights=/no.safetensors: no such file"),
        (["+extra=1"], "extra=1: extra inputs are not permitted"),
        (["job=evaluate"], "job.checkpoint: a value is needed"),
        (["job=compare"], "job.runs: a value is needed (folder with run directories and bundles"),
        (
            ["job=compare", "job.runs=/no"],
            "job.runs=/no: no such folder; give one, or a bundle (NAME.zip)",
        ),
        (
            ["job=compare", "job.runs=.", "job.pairs=[ties,free]"],
            "job.pairs=['ties', 'free']: give pairs of methods, e.g. [[ties,free],[free,tsv_m]]",
        ),
        (
            ["job=compare", "job.runs=.", "job.against=../ties"],
            "job.against=../ties: ",
        ),
    ],
)
def test_config_mistakes(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = command(*arguments, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {expected}")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["/data/a=b", "/bäume/(neu)", '/a"b\\c', "~/data"])
def test_the_quotes_that_a_message_suggests_work(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home of/me")
    mistake = command("suite=folder", f"suite.root={value}", f"hydra.run.dir={tmp_path}/run")
    _, _, suggested = mistake.stderr.partition("needs quotes: ")
    quoted = command("suite=folder", *shlex.split(suggested), f"hydra.run.dir={tmp_path}/run")
    meant = value.replace("~", "/home of/me")
    assert quoted.stderr == f"error: suite.root={meant}: path does not point to a directory\n"


@pytest.mark.parametrize(
    ("arguments", "imported_for_it"),
    [
        (["--help"], set()),
        (["granularity=row"], set()),
        (["-m", "seed=0,1", "status=true"], set()),
        # Methods are classes, so a mistake in their parameters needs torch, but nothing else.
        (["method=[]"], {"torch"}),
        (["method.task_arithmetic.scale=-1"], {"torch"}),
        # Jobs that score nothing import no more than they use.
        (["job=report", "job.runs=."], set()),
        (["job=compare", "job.runs=."], set()),
        (["job=bundle", "job.runs=.", "job.target=x.zip"], set()),
        (["job=convert", "job.source=missing", "job.target=x.safetensors"], {"torch"}),
    ],
)
def test_help_and_mistakes_import_no_more_than_they_need(
    arguments: list[str], imported_for_it: set[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "run.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    heavy = {"torch", "lightning", "timm", "open_clip", "wandb", "datasets"}
    assert imported & heavy <= imported_for_it


def test_help_lists_groups_and_choices() -> None:
    text = command("--help").stdout
    assert "labels: ground_truth, hard, " in text
    assert "suite: embedded, folder" in text
    assert "hydra/launcher: basic, joblib, submitit_local, submitit_slurm" in text
    assert "hydra/sweeper: basic, optuna, teacher_agreement" in text


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    """As ``run.py --help | head`` does."""
    started = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    started.stdout.close()
    _, errors = started.communicate()
    assert started.returncode == UNREAD
    assert errors == ""


def test_paths_mean_the_same_in_another_working_directory(
    small_run: list[str], suite_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").symlink_to(suite_root)
    options = ["suite.root=images", "hydra.run.dir=run", "hydra.job.chdir=true"]
    done = command(*small_run, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "manifest.json").exists()
    again = command(*small_run, *options[:2], cwd=tmp_path)
    assert "this run is complete already" in again.stderr


def test_weights_that_do_not_match(
    small_run: list[str], small_weights: Path, tmp_path: Path
) -> None:
    state = load_file(small_weights)
    state["blocks.0.attn.qkv.weight"] = torch.zeros(2, 2)
    del state["norm.weight"]
    wrong = tmp_path / "wrong.safetensors"
    save_file(state, wrong)
    with pytest.raises(UserError) as refused:
        run_in_process([*small_run, f"backbone.weights={wrong}"], tmp_path / "run")
    assert "'blocks.0.attn.qkv.weight': backbone (72, 24)" in str(refused.value)
    assert "'norm.weight': backbone (24,)" in str(refused.value)


def test_weights_that_are_no_numbers(
    small_run: list[str], small_weights: Path, tmp_path: Path
) -> None:
    state = load_file(small_weights)
    state["norm.bias"][3] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match=r"nan\.safetensors: tensor 'norm\.bias' holds NaN"):
        run_in_process(
            [*small_run, f"backbone.weights={tmp_path}/nan.safetensors"], tmp_path / "run"
        )


def test_truncated_weights(small_run: list[str], small_weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(small_weights.read_bytes()[:-64])
    with pytest.raises(UserError, match=r"cut\.safetensors is not a whole safetensors file"):
        run_in_process([*small_run, f"backbone.weights={cut}"], tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(small_run: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no GPU here; choose auto or cpu"):
        run_in_process([*small_run, "accelerator=gpu"], tmp_path / "run")


def test_splits_that_share_images(small_run: list[str], tmp_path: Path) -> None:
    root = write_suite(tmp_path / "suite", images_per_split=12)
    shutil.copy(
        root / "parity" / "validation-00000-of-00001.parquet",
        root / "parity" / "test-00000-of-00001.parquet",
    )
    with pytest.raises(UserError, match=r"parity: 12 image\(s\) in both validation and test"):
        run_in_process([*small_run, f"suite.root={root}"], tmp_path / "run")


def test_a_refused_run_leaves_no_directory(small_run: list[str], tmp_path: Path) -> None:
    done = command(*small_run, "suite.tasks=[parity,shape]", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert "has no task shape; it has parity, size" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("held", [(), ("wandb", "tensorboard")])
def test_a_refused_run_leaves_what_it_found(tmp_path: Path, held: tuple[str, ...]) -> None:
    for name in held:
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "old").write_text("months of work")
    (tmp_path / "run").mkdir(exist_ok=True)
    done = command("tuning.images_per_task=0", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert {path.name for path in (tmp_path / "run").iterdir()} == set(held)
    assert all((tmp_path / "run" / name / "old").exists() for name in held)


def test_ctrl_c_says_how_to_continue(small_run: list[str], tmp_path: Path) -> None:
    arguments = [*small_run, "trainer.steps=20000", f"hydra.run.dir={tmp_path}/run"]
    # A suite that runs in the background has SIGINT ignored, and its children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *arguments], stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "learning coefficients" in line:
                break
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        try:
            _, rest = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 130
    assert rest.endswith("stopped by Ctrl-C: the same command continues\n")


def test_a_local_expert_that_is_missing_or_foreign(
    small_run: list[str], run_job: JobRunner, tmp_path: Path
) -> None:
    run_job("job=finetune", directory=tmp_path / "zoo")
    experts = tmp_path / "zoo" / "experts"
    local = [item for item in small_run if not item.startswith("zoo.")]
    local += ["zoo=local", f"zoo.root={experts}"]
    state = load_file(experts / "size.safetensors")
    del state["head.bias"]
    save_file(state, experts / "size.safetensors")
    with pytest.raises(UserError, match=r"size\.safetensors: an expert needs backbone\.\*"):
        run_in_process(local, tmp_path / "run")
    (experts / "parity.safetensors").unlink()
    with pytest.raises(UserError, match=r"parity\.safetensors: no such file"):
        run_in_process(local, tmp_path / "run")


@pytest.mark.parametrize("inside", ["", "/run"])
def test_a_file_in_the_way_of_the_run_directory(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("mine")
    done = command(f"hydra.run.dir={tmp_path}/file{inside}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}/file")
    assert done.stderr.endswith("cannot be a folder: there is a file in its way\n")
    assert (tmp_path / "file").read_text() == "mine"


def test_command_line_runs_a_job_and_keeps_another_configs_results(
    small_run: list[str], tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    done = command(*small_run, f"hydra.run.dir={directory}")
    assert done.returncode == 0, done.stderr
    assert "StatsMerging" in done.stdout
    files = {"config.yaml", "manifest.json", "results.json", "coefficients.parquet"}
    assert files | {"merged.safetensors", "run.log"} <= {path.name for path in directory.iterdir()}

    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    refused = command(*small_run, f"hydra.run.dir={directory}", "seed=3")
    assert refused.returncode == 2
    assert "already holds the results of another config" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()} == before
