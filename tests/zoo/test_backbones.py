"""Backbones by name, and published weights in them, against the libraries' own loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from timm.models import register_model

from statsmerging.errors import UserError
from statsmerging.merging import MergingError
from statsmerging.zoo.backbones import create_backbone, feature_dimension, preprocess_of
from statsmerging.zoo.settings import BackboneSettings
from tests.conftest import ROOT

SMALL: dict[str, Any] = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


def settings(**changes: Any) -> BackboneSettings:
    values: dict[str, Any] = {
        "label": "test",
        "library": "timm",
        "name": "vit_tiny_patch16_224",
        "weights": "pretrain",
        "tag": None,
        "image_size": 32,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "arguments": {**SMALL, "img_size": 32},
    }
    return BackboneSettings(**{**values, **changes})


OPEN: dict[str, Any] = dict.fromkeys(
    ("image_size", "mean", "std", "interpolation", "crop_ratio", "crop_mode")
)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "resnet50.a1_in1k",
        "cspdarknet53.ra_in1k",
        "dm_nfnet_f0.dm_in1k",
        "mobilenetv2_100",
    ],
)
def test_open_preprocessing_is_timms_own(name: str) -> None:
    architecture, _, tag = name.partition(".")
    own = preprocess_of(settings(name=architecture, tag=tag or None, **OPEN))
    published: Any = timm.get_pretrained_cfg(name)
    assert own.image_size == published.input_size[1]
    assert (own.mean, own.std) == (published.mean, published.std)
    assert own.interpolation == published.interpolation
    assert (own.crop_ratio, own.crop_mode) == (published.crop_pct, published.crop_mode)


def test_what_the_settings_say_comes_before_what_the_checkpoint_has() -> None:
    chosen = preprocess_of(settings(**{**OPEN, "image_size": 64, "crop_ratio": 1.0}))
    assert (chosen.image_size, chosen.crop_ratio, chosen.mean) == (64, 1.0, (0.5, 0.5, 0.5))


def test_open_preprocessing_is_open_clips_own() -> None:
    for name, tag, mode, mean in (
        ("ViT-B-32-quickgelu", "openai", "center", 0.48145466),
        ("ViT-L-14-336", "openai", "center", 0.48145466),
        ("ViT-B-16-SigLIP-256", "webli", "squash", 0.5),
    ):
        own = preprocess_of(settings(library="open_clip", name=name, tag=tag, **OPEN))
        side = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
        assert (own.image_size, own.crop_ratio, own.crop_mode) == (side, 1.0, mode)
        assert own.mean[0] == mean


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"crop_mode": "border"}, "crop_mode: the checkpoint's own is border; choose center or"),
        ({"interpolation": "nearest"}, "interpolation: the checkpoint's own is nearest; choose"),
        ({"input_size": (3, 1024, 768)}, "image_size: the checkpoint's own is 1024 × 768; choose"),
    ],
)
def test_a_checkpoints_own_that_is_not_offered_is_refused(
    own: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: Any = timm.get_pretrained_cfg("resnet50")
    published = replace(published, **own)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: published)
    with pytest.raises(UserError, match=message):
        preprocess_of(settings(name="resnet50", **OPEN))


@pytest.mark.parametrize(
    ("library", "name", "tags"),
    [("timm", "resnet50", "a1_in1k"), ("open_clip", "ViT-B-16-SigLIP", "webli")],
)
def test_unknown_tags_are_answered_with_the_known_ones(library: str, name: str, tags: str) -> None:
    with pytest.raises(UserError, match=f"tag=mine: {library} has no such weights .* has {tags}"):
        preprocess_of(settings(library=library, name=name, tag="mine", **OPEN))


@pytest.mark.parametrize("name", ["vit_tiny", "vit_b_16", "vit_b_32", "vit_l_14", "resnet50"])
def test_presets_are_what_the_checkpoints_were_evaluated_with(name: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        choice = compose("config", overrides=[f"backbone={name}"])
    values: Any = OmegaConf.to_container(choice.backbone, resolve=True)
    preset = BackboneSettings(**values)
    own = preprocess_of(preset.model_copy(update=OPEN))
    if name == "vit_tiny":
        assert own.crop_ratio == 0.9  # conf/ says why the preset has another one
        own = replace(own, crop_ratio=1.0)
    assert preprocess_of(preset) == own


def test_an_architecture_without_weights_sees_the_whole_shorter_side() -> None:
    @register_model
    def nobodys_network(**_: Any) -> torch.nn.Module:
        return torch.nn.Identity()

    own = preprocess_of(settings(name="nobodys_network", **OPEN))
    assert (own.image_size, own.crop_ratio, own.mean) == (224, 1.0, (0.485, 0.456, 0.406))


def test_records_without_a_crop_mean_the_whole_shorter_side() -> None:
    assert preprocess_of(settings()).crop_ratio == 1.0
    assert preprocess_of(settings()).crop_mode == "center"


def test_weights_of_another_image_size_load_as_timm_loads_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64, **SMALL)
    file = tmp_path / "model.safetensors"
    save_file(published.state_dict(), file)
    ours = create_backbone(settings(weights=str(file)))
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=0,
        img_size=32,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(file)},
        **SMALL,
    )
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))
    assert feature_dimension(ours, preprocess_of(settings())) == 24


def test_a_convolutional_network_loads_without_its_classifier(tmp_path: Path) -> None:
    published: Any = timm.create_model("resnet10t", num_classes=5)
    save_file(published.state_dict(), tmp_path / "resnet.safetensors")
    ours = create_backbone(
        settings(name="resnet10t", weights=str(tmp_path / "resnet.safetensors"), arguments={})
    )
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = published.eval().forward_head(
            published.forward_features(images), pre_logits=True
        )
        torch.testing.assert_close(ours.eval()(images), features)


def test_open_clip_gives_the_image_tower() -> None:
    tower = create_backbone(
        settings(library="open_clip", name="ViT-B-32-quickgelu", image_size=224, arguments={})
    )
    # 87.8 million parameters: the vision transformer with its projection, without the text tower.
    assert sum(weight.numel() for weight in tower.parameters()) == 87_849_216
    assert feature_dimension(tower, preprocess_of(settings(image_size=224))) == 512


@pytest.mark.parametrize(
    ("library", "name", "close"),
    [
        ("timm", "vit_tiny_patch16_225", "vit_tiny_patch16_224"),
        ("open_clip", "vit-b-32", "ViT-B-32"),
    ],
)
def test_unknown_names_suggest_close_ones(library: str, name: str, close: str) -> None:
    with pytest.raises(UserError, match=f"{library} has no such model; close names: .*{close}"):
        create_backbone(settings(library=library, name=name, arguments={}))


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    save_file({"layer.weight": torch.zeros(2)}, file)
    with pytest.raises(MergingError, match="'cls_token': backbone"):
        create_backbone(settings(weights=str(file)))
    with pytest.raises(ValidationError, match="no such file"):
        settings(weights=str(tmp_path / "absent.safetensors"))
    other = tmp_path / "model.onnx"
    other.write_bytes(b"graph")
    with pytest.raises(UserError, match=r"read from \.safetensors files only"):
        create_backbone(settings(weights=str(other)))


def test_pickled_state_dicts_are_read_as_data(small_weights: Path, tmp_path: Path) -> None:
    state = load_file(small_weights)
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    made = create_backbone(settings(weights=str(tmp_path / "weights.pth"), arguments=arguments))
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_real_vit_tiny_sees_the_cat(real_data: Path) -> None:
    """The published ImageNet weights, loaded by us, separate scikit-image's cat from its coffee."""
    from PIL import Image
    from skimage import data

    file = real_data / "weights" / "vit_tiny_patch16_224_augreg_in1k.safetensors"
    choice = settings(weights=str(file), image_size=224, arguments={"img_size": 224})
    backbone = create_backbone(choice).eval()
    from safetensors.torch import load_file

    head = load_file(file)
    preprocess = preprocess_of(choice)
    pixels = [
        preprocess.resize(Image.fromarray(image)) for image in (data.chelsea(), data.coffee())
    ]
    images = preprocess.normalise(torch.stack([torch.from_numpy(p) for p in pixels]))
    with torch.inference_mode():
        scores = backbone(images) @ head["head.weight"].T + head["head.bias"]
    egyptian_cat, espresso = 285, 967
    assert scores.argmax(1).tolist() == [egyptian_cat, espresso]
