"""``job=export`` as a user meets it: folders that other libraries load with the same features."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from statsmerging.errors import UserError
from statsmerging.store.files import read_json
from statsmerging.store.hashing import file_sha256
from tests.conftest import SMALL_RUN, JobRunner, run_in_process
from tests.received_runs import change_manifest, change_results
from tests.zoo.formats.genuine import tiny_clip


@pytest.fixture(scope="module")
def clip_run(
    suite_root: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A merge of two experts of a tiny CLIP image tower."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tower = open_clip.create_model("ViT-B-32-quickgelu", **tiny_clip(2.0)).visual
    save_file(tower.state_dict(), folder / "tower.safetensors")
    arguments = json.dumps(tiny_clip(2.0)).replace('"', "")
    run_in_process(
        [
            "suite=folder",
            f"suite.root={suite_root}",
            f"cache={shared_cache}",
            "backbone=open_clip",
            "backbone.name=ViT-B-32-quickgelu",
            f"backbone.weights={folder}/tower.safetensors",
            f"+backbone.arguments={arguments}",
            "backbone.image_size=8",
            *SMALL_RUN,
        ],
        folder / "run",
    )
    # What the run began with is not needed any more.
    (folder / "tower.safetensors").unlink()
    return folder / "run"


@pytest.fixture
def exported(clip_run: Path, tmp_path: Path) -> Path:
    return export(clip_run, tmp_path / "exported")


def export(run: Path, target: Path) -> Path:
    run_in_process(["job=export", f"job.run={run}", f"job.target={target}"], target.parent / "log")
    return target


def test_open_clip_loads_the_tower(clip_run: Path, exported: Path) -> None:
    tower = open_clip.create_model("ViT-B-32-quickgelu", **tiny_clip(2.0)).visual.eval()
    tower.load_state_dict(load_file(exported / "open_clip" / "model.safetensors"))
    merged = load_file(clip_run / "merged.safetensors")
    assert all(torch.equal(tensor, merged[name]) for name, tensor in tower.state_dict().items())


def test_record_says_what_the_config_left_to_the_checkpoint(clip_run: Path) -> None:
    manifest = read_json(clip_run / "manifest.json")
    assert manifest["config"]["backbone"]["mean"] is None
    assert manifest["preprocessing"] == {
        "backbone": {
            "image_size": 8,
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
            "interpolation": "bicubic",
            "crop_ratio": 1.0,
            "crop_mode": "center",
        }
    }


def test_hugging_face_config_has_the_tower_dimensions(exported: Path) -> None:
    config = json.loads((exported / "hugging_face" / "config.json").read_text())
    assert config == {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_channels": 3,
        "image_size": 8,
        "patch_size": 4,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
    }


def test_transformers_loads_the_folder_with_the_same_features(exported: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: it is no dependency of ours"
    )
    theirs, report = transformers.CLIPVisionModelWithProjection.from_pretrained(
        exported / "hugging_face", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ours = open_clip.create_model("ViT-B-32-quickgelu", **tiny_clip(2.0)).visual.eval()
    ours.load_state_dict(load_file(exported / "open_clip" / "model.safetensors"))
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        features: Tensor = theirs.eval()(images).image_embeds
        torch.testing.assert_close(features, ours(images), rtol=0, atol=1e-5)


def test_card_summarises_the_run(clip_run: Path, exported: Path) -> None:
    card = (exported / "hugging_face" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert f"sha256 of its manifest `{file_sha256(clip_run / 'manifest.json')}`" in card
    assert "| StatsMerging |" in card
    assert "granularity = layer_wise, learner = shared" in card
    assert "- labels of the experts: hard\n" in card
    assert "- images: 8 × 8 pixels, bicubic, center crop, ratio 1\n" in card
    table = pd.read_parquet(clip_run / "coefficients.parquet")
    parity = table[table["task"] == "parity"]["coefficient"]
    numbers = f"{parity.mean():.3f} | {parity.min():.3f} | {parity.max():.3f}"
    assert f"| parity | {len(parity)} | {numbers} |" in card
    assert "CLIPVisionModelWithProjection.from_pretrained" in card
    assert "open_clip.create_model" in (exported / "open_clip" / "README.md").read_text()


def test_cards_of_native_folders_load_the_model(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python code on the card is run as it stands."""
    monkeypatch.chdir(exported / "open_clip")
    code = Path("README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["backbone"](torch.zeros(1, 3, 8, 8)).shape == (1, 12)


def test_again_gives_the_same_and_another_run_is_refused(
    clip_run: Path, exported: Path, tmp_path: Path
) -> None:
    before = {file: file.read_bytes() for file in files(exported)}
    export(clip_run, exported)
    assert {file: file.read_bytes() for file in files(exported)} == before
    (exported / "open_clip" / "model.safetensors").write_bytes(b"of somebody else")
    with pytest.raises(UserError, match=r"model\.safetensors already holds something else"):
        export(clip_run, exported)


@pytest.mark.parametrize(
    "arguments",
    [
        {"pretrained_image_path": "optimizer.pt"},
        {"weights_only": False},
        {"vision_cfg": {**tiny_clip(2.0)["vision_cfg"], "timm_model_pretrained": True}},
        {"text_cfg": {"hf_model_name": "owner/name"}},
        {"embed_dim": "http://127.0.0.1:9/"},
    ],
)
def test_a_manifest_chooses_no_loader(
    clip_run: Path, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    received = Path(shutil.copytree(clip_run, tmp_path / "received"))
    change_manifest(
        received, lambda manifest: manifest["config"]["backbone"]["arguments"].update(arguments)
    )
    (name,) = arguments
    with pytest.raises(UserError, match=rf"backbone\.arguments\.{name}=.* command line.* allows"):
        export(received, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_what_the_command_says_itself_is_allowed(clip_run: Path, tmp_path: Path) -> None:
    received = Path(shutil.copytree(clip_run, tmp_path / "received"))
    change_manifest(
        received, lambda manifest: manifest["config"]["backbone"]["arguments"].update(jit=False)
    )
    target = tmp_path / "exported"
    overrides = ["job=export", f"job.run={received}", f"job.target={target}"]
    run_in_process([*overrides, "+backbone.arguments.jit=false"], tmp_path / "log")
    assert (target / "open_clip" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["merged.safetensors", "coefficients.parquet"])
def test_a_damaged_run_is_not_exported(clip_run: Path, tmp_path: Path, name: str) -> None:
    received = Path(shutil.copytree(clip_run, tmp_path / "received"))
    content = bytearray((received / name).read_bytes())
    content[-9] ^= 1
    (received / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} is not what the run wrote"):
        export(received, tmp_path / "exported")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("merged", "received: its record lacks"),
        ("suite", r"results\.json is no record: suite: Field required"),
    ],
)
def test_a_record_that_lacks_something(
    clip_run: Path, tmp_path: Path, entry: str, message: str
) -> None:
    received = Path(shutil.copytree(clip_run, tmp_path / "received"))
    change_results(received, lambda results: results.pop(entry))
    with pytest.raises(UserError, match=message):
        export(received, tmp_path / "exported")


def test_links_in_a_run_are_not_followed(clip_run: Path, tmp_path: Path) -> None:
    received = Path(shutil.copytree(clip_run, tmp_path / "received"))
    (received / "config.yaml").unlink()
    (received / "config.yaml").symlink_to(clip_run / "config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml is a link"):
        export(received, tmp_path / "exported")


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def test_other_backbones_are_exported_without_a_hugging_face_folder(
    small_run: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_in_process(small_run, tmp_path / "run")
    with caplog.at_level(logging.INFO):
        target = export(tmp_path / "run", tmp_path / "exported")
    assert {file.relative_to(target).as_posix() for file in files(target)} == {
        "timm/README.md",
        "timm/model.safetensors",
    }
    assert (
        "hugging_face (timm.models.vision_transformer.VisionTransformer is no CLIP" in caplog.text
    )


def test_a_folder_without_a_merge(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is no finished run: it has no manifest\.json"):
        export(tmp_path / "empty", tmp_path / "exported")


def test_the_card_tells_of_the_method_whose_model_it_is(run_job: JobRunner, tmp_path: Path) -> None:
    """The last static method is exported, here one without coefficients, after one with them."""
    run_job("method=[stats_merging,ties]", directory=tmp_path / "run")
    run = f"job.run={tmp_path / 'run'}"
    run_in_process(["job=export", run, f"job.target={tmp_path / 'out'}"], tmp_path / "export")
    card = (tmp_path / "out" / "timm" / "README.md").read_text()
    assert "by TIES, tuned, with" in card  # the row after the one with the default
    assert "- parameters: density = 0.2, scale = " in card
    assert "## Coefficients" not in card

    in_the_way = tmp_path / "file"
    in_the_way.write_text("mine")
    with pytest.raises(UserError, match="there is a file in its way"):
        run_in_process(["job=export", run, f"job.target={in_the_way}"], tmp_path / "again")
    assert in_the_way.read_text() == "mine"


def test_the_card_tells_what_its_coefficients_are_of(run_job: JobRunner, tmp_path: Path) -> None:
    run_job("method=[singular_wise]", directory=tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "coefficients.parquet")
    target = export(tmp_path / "run", tmp_path / "out")
    card = (target / "timm" / "README.md").read_text()
    assert (
        "One for each singular direction of a matrix, and one for each bias, norm or token." in card
    )
    parity = table[table["task"] == "parity"]
    assert len(parity) > parity["layer"].nunique()
    assert f"| parity | {parity['layer'].nunique()} | {len(parity)} | " in card
