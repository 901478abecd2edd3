"""job=reproduce: the same numbers again, and every difference named."""

from __future__ import annotations

import logging
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statsmerging.app.config import Config
from statsmerging.app.received_config import received_config
from statsmerging.app.run import Run
from statsmerging.data.hub import closed_hub, hub_is_open
from statsmerging.errors import IncompleteError, UserError
from statsmerging.jobs import reproduce
from statsmerging.runs.comparison import differences, same_bits_promised
from statsmerging.runs.directory import RunDirectory
from statsmerging.runs.finished import read_finished_run
from statsmerging.store.files import read_json
from tests.app.test_configs import composed
from tests.conftest import run_in_process, small_overrides
from tests.received_runs import change_config, change_manifest, change_results


@pytest.fixture(scope="module")
def made(
    suite_root: Path,
    shared_cache: Path,
    small_weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """One finished merge."""
    run = tmp_path_factory.mktemp("made") / "run"
    run_in_process(small_overrides(suite_root, shared_cache, small_weights), run)
    return run


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def again(finished: Path, shared_cache: Path, tmp_path: Path) -> Any:
    """Reproduce the run and return the comparison."""

    def reproduce(*overrides: str) -> dict[str, Any]:
        arguments = ["job=reproduce", f"job.run={finished}", f"cache={shared_cache}", *overrides]
        run_in_process(arguments, tmp_path / "reproduced")
        comparison: dict[str, Any] = read_json(tmp_path / "reproduced" / "comparison.json")
        return comparison

    return reproduce


def test_every_number_is_the_same_also_from_an_empty_cache(again: Any, tmp_path: Path) -> None:
    for overrides in ((), (f"cache={tmp_path}/empty",)):
        comparison = again(*overrides)
        assert comparison["reproduced"]
        assert comparison["numbers"] == []
        assert comparison["circumstances"] == []
    # Nothing of the comparison is taken from the first run's directory.
    repeated = pd.read_parquet(tmp_path / "reproduced" / "again" / "coefficients.parquet")
    assert repeated.equals(pd.read_parquet(tmp_path / "run" / "coefficients.parquet"))


def test_every_number_is_the_same_with_singular_directions(
    small_run: list[str], shared_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    run_in_process([*small_run, "granularity=singular_wise"], run)
    arguments = ["job=reproduce", f"job.run={run}", f"cache={shared_cache}"]
    with caplog.at_level(logging.INFO):
        run_in_process(arguments, tmp_path / "reproduced")
    assert "every number is the same" in caplog.text
    assert read_json(tmp_path / "reproduced" / "comparison.json")["numbers"] == []


def test_a_run_of_a_version_with_fewer_and_other_keys_is_reproduced(
    again: Any, finished: Path
) -> None:
    later = ("link", "anchor", "scale", "start", "vectors", "vector_scale")

    def forget(config: dict[str, Any]) -> None:
        for key in later:
            del config["method"]["stats_merging"][key]
        del config["learner"]["start"], config["backbone"]["crop_ratio"], config["spectral"]
        del config["learner"]["vectors"], config["learner"]["vector_scale"]
        config["coefficients"] = config.pop("link")
        for zoo in (config["zoo"], config["heterogeneous"]["teachers"]):
            zoo["name"] = zoo.pop("kind")
            zoo.pop("lora_rank", None)
        del config["merge"]["running_statistics"]

    def forget_parameters(results: dict[str, Any]) -> None:
        for key in later:
            del results["methods"]["stats_merging"]["parameters"][key]

    change_config(finished, forget)
    change_results(finished, forget_parameters)
    comparison = again()
    assert comparison["reproduced"]
    assert comparison["numbers"] == []


@pytest.mark.parametrize(
    ("method", "later"),
    [
        ("tsv_m", {"flatten_convolutions": True}),
        ("wudi", {"all_tensors": True}),
        ("ties", {}),
        (
            "adamerging_layer_wise",
            {"link": "softmax", "anchor": "none", "scale": 2.0, "start": 0.3},
        ),
        ("released_code", {"trains": "coefficients_and_heads"}),
    ],
)
def test_what_was_no_choice_has_the_value_that_held(
    finished: Path, method: str, later: dict[str, Any]
) -> None:
    own = composed(f"method={method}")
    entry = {key: value for key, value in own.method[method].items() if key not in later}

    def older(config: dict[str, Any]) -> None:
        config["method"] = {method: entry}
        config["coefficients"], config["merge"]["anchor"] = "softmax", "none"
        config["learner"]["scale"] = 2.0

    change_config(finished, older)
    config, _ = received_config(read_finished_run(finished), own)
    assert config.method[method] == {**entry, **later}


@pytest.mark.parametrize(("change", "passes"), [(0.005, True), (0.05, False)])
def test_another_number_is_named_and_judged(
    again: Any, finished: Path, tmp_path: Path, change: float, passes: bool
) -> None:
    def other(results: dict[str, Any]) -> None:
        results["methods"]["stats_merging"]["accuracy"]["parity"] += change

    change_results(finished, other)
    change_manifest(finished, lambda manifest: manifest["packages"].update(torch="1.0"))
    if passes:
        assert again()["reproduced"]
    else:
        with pytest.raises(IncompleteError, match="was not reproduced: 1 numbers differ"):
            again()
    comparison = read_json(tmp_path / "reproduced" / "comparison.json")
    assert [item["name"] for item in comparison["circumstances"]] == ["package torch"]
    assert [item["name"] for item in comparison["numbers"]] == [
        "methods.stats_merging.accuracy.parity"
    ]


def test_with_everything_the_same_no_number_may_differ(
    again: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(results: dict[str, Any]) -> None:
        results["methods"]["simple_average"]["average"] += 1e-9

    change_results(finished, other)
    monkeypatch.setattr(reproduce, "same_bits_promised", lambda before, after: True)
    with pytest.raises(IncompleteError, match="none may"):
        again()


def test_a_changed_config_and_an_unfinished_run_are_refused(again: Any, finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(text.replace("seed: 0", "seed: 1"))
    with pytest.raises(UserError, match="was changed since"):
        again()
    (finished / "config.yaml").write_text(text)
    (finished / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"is no finished run: it has no manifest\.json"):
        again()


def test_code_of_a_received_run_is_run_only_if_the_command_names_it(
    again: Any, finished: Path, tmp_path: Path
) -> None:
    plugin = finished / "notes.py"
    plugin.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    change_config(finished, lambda config: config.update(plugins=[str(plugin)]))
    with pytest.raises(UserError, match=r"their code runs only if .* plugins=\[FILE\.py\]$"):
        again()
    assert not (tmp_path / "ran").exists()
    own = tmp_path / "own.py"
    own.write_text("")
    assert again(f"plugins=[{own}]")["reproduced"]
    assert not (tmp_path / "ran").exists()  # the user's file, not the sender's


def _names_a_method(outside: Path, config: dict[str, Any]) -> None:
    config["method"][str(outside)] = config["method"].pop("stats_merging")


def _names_a_task(outside: Path, config: dict[str, Any]) -> None:
    config["suite"]["tasks"] = ["parity", f"../{outside.name}"]


@pytest.mark.parametrize("change", [_names_a_method, _names_a_task])
def test_names_that_lead_out_of_the_run(
    again: Any, finished: Path, tmp_path: Path, change: Any
) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    change_config(finished, partial(change, outside))
    with pytest.raises(UserError, match=r"elsewhere.*no (plain )?name"):
        again()
    assert not list(outside.iterdir())


def test_a_run_that_would_write_elsewhere(again: Any, finished: Path, tmp_path: Path) -> None:
    job = {"name": "export", "run": str(finished), "target": str(tmp_path / "elsewhere")}
    change_config(finished, lambda config: config.update(job=job))
    with pytest.raises(UserError, match="job='export'; reproduced are merge, finetune, distill"):
        again()
    assert not (tmp_path / "elsewhere").exists()


def test_a_received_config_reads_no_variable(again: Any, finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(text.replace("name: folder", "name: ${oc.env:HOME}"))
    with pytest.raises(UserError, match=r"config\.yaml is no resolved config"):
        again()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pretrained_cfg_overlay", {"url": "http://127.0.0.1:9/weights.pt"}),
        ("checkpoint_path", "weights.pt"),
        ("pretrained_strict", False),
        ("norm_layer", "/tmp/norm.py"),
        ("img_size", {"checkpoint_path": "weights.pt"}),
    ],
)
def test_arguments_for_a_loader(again: Any, finished: Path, key: str, value: Any) -> None:
    change_config(finished, lambda config: config["backbone"]["arguments"].update({key: value}))
    with pytest.raises(UserError, match=rf"backbone\.arguments\.{key}=.* command line.* allows"):
        again()


def test_downloads_need_the_word_of_the_user(
    again: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline: list[str | None] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def repeat(run: Run, config: Config, directory: RunDirectory) -> None:
        offline.append(os.environ.get("HF_HUB_OFFLINE"))

    monkeypatch.setattr(Run, "repeat", repeat)
    change_config(finished, lambda config: config["backbone"].update(weights="hub"))
    with pytest.raises(UserError, match=r"backbone\.weights=hub.* job\.network=true allows it$"):
        again()
    assert not offline
    with pytest.raises(FileNotFoundError):  # nothing was repeated
        again("job.network=true")
    assert offline == [None]


@pytest.mark.parametrize("address", ["{here}", "../{name}", "data", "https://127.0.0.1/x"])
def test_no_folder_is_taken_for_a_place_on_the_hub(
    again: Any, finished: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    entry = {"id": address.format(here=tmp_path / "data", name=tmp_path.name), "gigabytes": 1}

    def of_the_hub(config: dict[str, Any]) -> None:
        config["suite"].update(kind="hub", root=None, catalogue={"parity": entry})

    change_config(finished, of_the_hub)
    with pytest.raises(UserError, match="is no address on the hub, OWNER/NAME"):
        again()


def test_nothing_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)

    def told() -> tuple[Any, ...]:
        import datasets
        import huggingface_hub

        variable = os.environ.get("HF_HUB_OFFLINE")
        constants = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
        return variable, *constants

    with closed_hub():
        assert told() == ("1", True, True)
        assert not hub_is_open()
    assert told() == (None, False, False)


def test_weights_that_changed_are_pointed_out_unread(
    again: Any, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    (tmp_path / "other").write_text("other")
    record = {"bytes": 1, "sha256": "0" * 64}
    files = {name: {"path": str(tmp_path / name), **record} for name in ("pipe", "other")}
    change_manifest(finished, lambda manifest: manifest.update(files=files))
    with caplog.at_level(logging.WARNING):
        again()
    assert f"{tmp_path}/pipe is gone" in caplog.text
    assert f"{tmp_path}/other is not the file it was" in caplog.text


@pytest.mark.parametrize("name", ["results.json", "coefficients.parquet"])
def test_a_damaged_run_is_not_compared(again: Any, finished: Path, name: str) -> None:
    content = bytearray((finished / name).read_bytes())
    content[len(content) // 2] ^= 1
    (finished / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is not what the run wrote"):
        again()


@pytest.mark.parametrize("part", ["code", "plugins", "packages", "hardware", "weights", "data"])
def test_the_promise_needs_the_same_circumstances(part: str) -> None:
    manifest: dict[str, Any] = {
        "code": {"commit": "a", "modified": False},
        "plugins": {"mine.py": {"sha256": "1"}},
        "packages": {"torch": "2"},
        "hardware": {"cpu": "x", "platform": "Linux 1"},
        "weights": {"pretrained": "1"},
        "data": {"mnist/test": "1"},
    }
    other = {**manifest, "hardware": {"cpu": "x", "platform": "Linux 2"}}
    assert same_bits_promised(manifest, other)
    key = next(iter(manifest[part]))
    changed = {**manifest, part: {**manifest[part], key: "other"}}
    assert not same_bits_promised(manifest, changed)
    assert not same_bits_promised(manifest, {**manifest, "code": {"commit": "a", "modified": True}})


def test_differences_name_every_leaf() -> None:
    before = {"a": {"b": 1, "c": 2.0}, "gone": 1}
    after = {"a": {"b": 1, "c": 2.5}, "new": "x"}
    found = {item.name: item.size for item in differences(before, after)}
    assert found == {"a.c": 0.5, "gone": float("inf"), "new": float("inf")}
