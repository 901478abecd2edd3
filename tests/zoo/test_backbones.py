"""Backbones by name, and published weights in them, against the libraries' own loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from statsmerging.merging import MergingError
from statsmerging.records.errors import UserError
from statsmerging.zoo.backbones import create_backbone, feature_dimension, preprocess_of
from statsmerging.zoo.settings import BackboneSettings

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
