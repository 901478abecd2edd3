"""A finished run is read as it was written, or one line names the file that is another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.finished import check_recorded, read_finished_run
from statsmerging.store.files import read_json, write_json
from statsmerging.store.received import ReceivedError

CONFIG: dict[str, Any] = {
    "seed": 0,
    "method": {"ties": {}},
    "cache": "here",
    "merge": {"anchor": "pretrained", "running_statistics": "averaged"},
}
RESULTS: dict[str, Any] = {
    "suite": "toy",
    "backbone": "vit",
    "seed": 0,
    "stamps": [],
    "methods": {"ties": {"accuracy": {"mnist": 0.5}, "average": 0.5}},
}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    directory = RunDirectory(tmp_path / "run", CONFIG)
    with directory.exclusive():
        directory.coefficients.write_bytes(b"coefficients")
        curve = directory.path / "learning_curves" / "ties" / "version_0" / "metrics.csv"
        curve.parent.mkdir(parents=True)
        curve.write_text("step,loss\n")
        (directory.path / "run.log").write_text("goes on")
        directory.finish(RESULTS, {"run_hash": directory.run_hash, "config": CONFIG})
    return directory.path


def _forget_hashes(finished: Path) -> None:
    manifest = read_json(finished / "manifest.json")
    del manifest["outputs"], manifest["sha256"]
    write_json(finished / "manifest.json", manifest)


def test_it_holds_what_was_written(finished: Path) -> None:
    run = read_finished_run(finished)
    assert (run.config, run.results.as_json()) == (CONFIG, RESULTS)
    assert run.file("coefficients.parquet") == finished / "coefficients.parquet"
    assert run.file("statistics.parquet") is None
    (curve,) = run.files_below("learning_curves")
    assert run.file(curve) == finished / "learning_curves/ties/version_0/metrics.csv"
    assert "run.log" not in run.manifest["outputs"]


def test_a_run_of_an_earlier_version_has_the_config_of_a_run_of_today(tmp_path: Path) -> None:
    """Otherwise a comparison takes them for runs of different settings."""
    hub = {"kind": "hub", "root": None}
    today = {
        **CONFIG,
        "link": "identity",
        "merge": {"anchor": "pretrained", "running_statistics": "averaged"},
        "zoo": {"kind": "finetuned", "lora_rank": None},
        "heterogeneous": {"teachers": hub},
    }
    earlier = {
        **CONFIG,
        "coefficients": "identity",
        "merge": {"anchor": "pretrained"},
        "zoo": {"name": "finetuned"},
        "heterogeneous": {"teachers": hub},
    }
    found = []
    for name, config in (("today", today), ("earlier", earlier)):
        directory = RunDirectory(tmp_path / name, config)
        with directory.exclusive():
            directory.finish(RESULTS, {"run_hash": directory.run_hash, "config": config})
        found.append(read_finished_run(directory.path).config)
    assert found == [today, today]


def test_what_the_manifest_does_not_list_is_no_file_of_the_run(finished: Path) -> None:
    (finished / "statistics.parquet").write_bytes(b"of somebody else")
    assert read_finished_run(finished).file("statistics.parquet") is None


@pytest.mark.parametrize(
    "name", ["config.yaml", "manifest.json", "results.json", "coefficients.parquet"]
)
def test_a_flipped_bit_is_noticed(finished: Path, name: str) -> None:
    content = bytearray((finished / name).read_bytes())
    content[content.rindex(b"e")] ^= 1
    (finished / name).write_bytes(content)
    with pytest.raises(ReceivedError, match=name):
        read_finished_run(finished).file(name)


def _links_elsewhere(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


@pytest.mark.parametrize("change", [Path.unlink, _links_elsewhere])
@pytest.mark.parametrize(
    "name", ["config.yaml", "manifest.json", "results.json", "coefficients.parquet"]
)
def test_a_file_that_is_gone_or_a_link(
    finished: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(finished / name)
    with pytest.raises(ReceivedError, match=name):
        read_finished_run(finished).file(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("manifest.json", []),
        ("manifest.json", {"run_hash": "1"}),
        ("manifest.json", {"run_hash": "1", "config": 3}),
        ("manifest.json", {"run_hash": "1", "config": {}, "outputs": ["results.json"]}),
        ("results.json", {"methods": [1]}),
        ("manifest.json", {"run_hash": "1", "config": {}, "files": {"base": {"path": "here"}}}),
        ("results.json", 3),
        ("results.json", {"methods": {"ties": {"accuracy": {"mnist": "0.5"}}}}),
        ("results.json", {"methods": {"ties": {"parameters": [1]}}}),
        ("results.json", {"methods": {}, "seed": "0"}),
    ],
)
def test_records_of_another_kind(finished: Path, name: str, value: Any) -> None:
    _forget_hashes(finished)
    write_json(finished / name, value)
    with pytest.raises(ReceivedError, match=rf"{name}.*is no record: "):
        read_finished_run(finished)


@pytest.mark.parametrize("text", ["1: 2\na: 3\n", "a: !!binary aGVsbG8=\n"])
def test_a_config_of_what_no_config_holds(finished: Path, text: str) -> None:
    (finished / "config.yaml").write_text(text)
    with pytest.raises(ReceivedError, match=r"config\.yaml"):
        read_finished_run(finished)


def test_a_checkpoint_beside_a_manifest_is_what_the_run_wrote(finished: Path) -> None:
    check_recorded(finished / "coefficients.parquet")
    check_recorded(finished / "run.log")  # in no manifest
    check_recorded(finished.parent / "nowhere.safetensors")
    (finished / "coefficients.parquet").write_bytes(b"coefficienty")
    with pytest.raises(ReceivedError, match=r"coefficients\.parquet is not what the run wrote"):
        check_recorded(finished / "coefficients.parquet")


def test_records_that_are_nested_deeply(finished: Path) -> None:
    for depth in range(100, 1000, 60):
        config = '{"a": ' * depth + "1" + "}" * depth
        (finished / "manifest.json").write_text(f'{{"run_hash": "1", "config": {config}}}')
        with pytest.raises(ReceivedError):
            read_finished_run(finished)


def test_text_that_no_file_can_hold(finished: Path) -> None:
    _forget_hashes(finished)
    (finished / "results.json").write_text('{"methods": {}, "suite": "\\ud800"}')
    with pytest.raises(ReceivedError, match=r"results\.json holds text that is no Unicode"):
        read_finished_run(finished)
    (finished / "config.yaml").write_text('suite: "\\ud800"')
    with pytest.raises(ReceivedError, match=r"config\.yaml"):
        read_finished_run(finished)


def test_a_manifest_without_hashes_is_of_an_older_version(finished: Path) -> None:
    _forget_hashes(finished)
    other = {**RESULTS, "seed": 1}
    write_json(finished / "results.json", other)
    run = read_finished_run(finished)
    assert run.results.as_json() == other
    assert run.file("coefficients.parquet") is not None
    assert run.file("statistics.parquet") is None
    assert run.files_below("learning_curves") == ["learning_curves/ties/version_0/metrics.csv"]


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a\0b"])
def test_names_in_a_manifest_do_not_lead_out_of_the_run(finished: Path, name: str) -> None:
    manifest = read_json(finished / "manifest.json")
    manifest["outputs"][name] = "0" * 64
    del manifest["sha256"]
    write_json(finished / "manifest.json", manifest)
    with pytest.raises(ReceivedError):
        read_finished_run(finished).file(name)


def test_a_complete_run_that_is_only_shown_again_keeps_its_config(finished: Path) -> None:
    with RunDirectory(finished, {**CONFIG, "cache": "elsewhere"}).exclusive():
        pass
    assert read_finished_run(finished).config["cache"] == "here"
