"""`statsmerging` from a wheel does what `python run.py` does in a checkout, from any folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import statsmerging
from statsmerging.runs.results import read_results
from statsmerging.store.files import read_json
from tests.conftest import ROOT
from tests.installed.conftest import SOURCES, Environment, commit, copied, new_environment

CODE_VERSION = "from statsmerging.runs.manifest import code_version; print(code_version())"


def files_below(folder: Path, place: str) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {f"{place}/{path.relative_to(folder).as_posix()}" for path in files}


def test_the_wheel_holds_the_package_and_the_configs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = files_below(ROOT / "src" / "statsmerging", "statsmerging")
    assert packed == package | files_below(ROOT / "conf", "statsmerging/conf")


def test_the_checkout_is_not_seen(installed: Environment, tmp_path: Path) -> None:
    code = "import statsmerging; print(statsmerging.__file__)"
    found = Path(installed.run("python", "-c", code, cwd=tmp_path).stdout.strip())
    assert found.is_relative_to(installed.folder)


#: Runs the examples of the heart as if torch were there alone of all that the command needs.
HEART_ALONE = r"""
import doctest, re, sys
from importlib.metadata import packages_distributions, requires

def plain(name):
    return re.match(r"[\w.-]+", name)[0].lower().replace("_", "-")

of_torch = {"torch", *map(plain, requires("torch")), "numpy"}
of_command = {*map(plain, requires("statsmerging"))} - of_torch - {"statsmerging"}
for module, names in packages_distributions().items():
    if of_command.intersection(map(plain, names)):
        sys.modules[module] = None
assert {"hydra", "pydantic", "lightning", "pandas"} <= sys.modules.keys()
import statsmerging.merging
print(doctest.testmod(statsmerging.merging))
"""


def test_the_heart_needs_torch_alone(installed: Environment, tmp_path: Path) -> None:
    done = installed.run("python", "-c", HEART_ALONE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "failed=0" in done.stdout


def folder_of_configs(help_text: str) -> Path:
    (line,) = [line for line in help_text.splitlines() if "is documented in" in line]
    return Path(line.rpartition(" ")[2])


def test_help_names_the_command_and_where_its_keys_are_documented(
    installed: Environment, tmp_path: Path
) -> None:
    done = installed.run("statsmerging", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nstatsmerging job=JOB " in done.stdout
    assert "run.py" not in done.stdout
    folder = folder_of_configs(done.stdout)
    assert folder.is_relative_to(installed.folder)
    assert (folder / "config.yaml").read_bytes() == (ROOT / "conf" / "config.yaml").read_bytes()


def test_an_editable_install_reads_the_configs_of_the_checkout(
    sources: Path, tmp_path: Path
) -> None:
    checkout = copied(sources, tmp_path, SOURCES)
    environment = new_environment(tmp_path / "environment")
    environment.install("--editable", str(checkout))
    done = environment.run("statsmerging", "--help", cwd=tmp_path / "environment")
    assert done.returncode == 0, done.stderr
    assert folder_of_configs(done.stdout) == checkout / "conf"
    assert not list((tmp_path / "environment").rglob("config.yaml"))


def test_a_run_in_an_empty_folder(
    installed: Environment, small_run: list[str], tmp_path: Path
) -> None:
    done = installed.run("statsmerging", *small_run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "StatsMerging" in done.stdout
    (run,) = (tmp_path / "outputs" / "merge").iterdir()
    assert "stats_merging" in read_results(run).methods

    code = read_json(run / "manifest.json")["code"]
    # The repository around the environment has a commit, which says nothing about the package.
    assert code == {
        "statsmerging": statsmerging.__version__,
        "commit": None,
        "modified": False,
        "sha256": code["sha256"],
    }
    assert len(code["sha256"]) == 64

    again = installed.run("statsmerging", *small_run, cwd=tmp_path)
    assert "this run is complete already" in again.stderr
    assert "another version" not in again.stderr


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    """A folder beside the command with an experiment, which is a sweep."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(
        "# @package _global_\n"
        "granularity: task_wise\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 5,6\n"
    )
    return tmp_path / "mine"


def test_own_configs(installed: Environment, own_configs: Path) -> None:
    arguments = ["--config-dir", own_configs.name, "experiment=own"]
    shown = installed.run("statsmerging", *arguments, "--cfg", "job", cwd=own_configs.parent)
    assert shown.returncode == 0, shown.stderr
    assert "\ngranularity: task_wise\n" in shown.stdout

    listed = installed.run("statsmerging", *arguments, "status=true", cwd=own_configs.parent)
    assert listed.returncode == 0, listed.stderr
    assert "experiment=own: 2 runs" in listed.stdout

    mistaken = [*arguments, "labels=hard,soft", "trainer.stepz=3"]
    refused = installed.run("statsmerging", *mistaken, cwd=own_configs.parent)
    assert refused.stderr.startswith("error: trainer.stepz: no such key; choose one of ")
    assert refused.returncode == 2


def test_messages_name_the_command(installed: Environment, tmp_path: Path) -> None:
    done = installed.run("statsmerging", "seed=0,1", cwd=tmp_path)
    assert "are a sweep, statsmerging -m seed=0,1; a list" in done.stderr


@pytest.mark.parametrize(
    "launcher",
    ["joblib hydra.launcher.n_jobs=2", "submitit_local hydra.launcher.timeout_min=30"],
)
def test_a_sweep_in_other_processes(
    installed: Environment, small_run: list[str], tmp_path: Path, launcher: str
) -> None:
    options = [*f"hydra/launcher={launcher}".split(), "threads=1", "method=[simple_average]"]
    done = installed.run("statsmerging", "-m", *small_run, *options, "seed=0,1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 jobs done" in done.stdout
    runs = [path.parent for path in (tmp_path / "outputs" / "merge").glob("*/results.json")]
    assert {read_results(run).seed for run in runs} == {0, 1}


def test_the_commit_that_pip_has_taken_is_known(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    repository = copied(sources, tmp_path / "repository", SOURCES)
    taken = commit(repository, "a version")
    environment = new_environment(tmp_path / "environment")
    environment.install(f"git+file://{repository}")
    assert (
        f"'commit': '{taken}'" in environment.run("python", "-c", CODE_VERSION, cwd=tmp_path).stdout
    )
