"""Genuine files of every family give the features their own project computes."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from statsmerging.errors import UserError
from statsmerging.merging import MergingError
from statsmerging.zoo.formats.checkpoints import read_file
from statsmerging.zoo.formats.foreign import read_foreign
from tests.zoo.formats.genuine import FIXTURES, TINY_CLIP, our_features

TEXT_TENSORS_OF_CLIP = 22


@pytest.mark.parametrize("version", ["transformers_4", "transformers_5"])
@pytest.mark.parametrize(
    ("file", "dropped"),
    [
        ("clip/model.safetensors", TEXT_TENSORS_OF_CLIP),
        ("clip.bin", TEXT_TENSORS_OF_CLIP),
        ("vision_with_projection/model.safetensors", 0),
    ],
)
def test_hugging_face_files(version: str, file: str, dropped: int, tmp_path: Path) -> None:
    expected = load_file(FIXTURES / version / "expected.safetensors")
    foreign = read_foreign(FIXTURES / version / file)
    features = our_features(foreign.tensors, expected["images"], tmp_path)
    torch.testing.assert_close(features, expected["features"], rtol=0, atol=1e-5)
    assert foreign.family == "Hugging Face CLIP"
    assert len(foreign.dropped) == dropped
    assert not any("vision" in name or "visual" in name for name in foreign.dropped)


@pytest.mark.parametrize("version", ["transformers_4", "transformers_5"])
def test_a_vision_model_takes_its_projection_from_the_base(version: str, tmp_path: Path) -> None:
    vision = FIXTURES / version / "vision" / "model.safetensors"
    expected = load_file(FIXTURES / version / "expected.safetensors")
    with pytest.raises(UserError, match="has no projection: give a base that has one"):
        read_foreign(vision)
    with pytest.raises(UserError, match="has no projection of features of width 16"):
        read_foreign(vision, load_file(vision))
    tower = read_foreign(vision, read_file(FIXTURES / version / "clip.bin").tensors).tensors
    features = our_features(tower, expected["images"], tmp_path)
    torch.testing.assert_close(features, expected["features"], rtol=0, atol=1e-5)
    tower["proj"] = torch.eye(16)[:, :12]
    pooled = our_features(tower, expected["images"], tmp_path)
    torch.testing.assert_close(pooled, expected["pooled"][:, :12], rtol=0, atol=1e-5)


@pytest.mark.parametrize("file", ["task_vectors_encoder.pt", "task_vectors_state_dict.pt"])
def test_task_vectors_encoders(file: str, tmp_path: Path) -> None:
    expected = load_file(FIXTURES / "task_vectors_expected.safetensors")
    foreign = read_foreign(FIXTURES / file)
    features = our_features(foreign.tensors, expected["images"], tmp_path, mlp_ratio=4.0)
    torch.testing.assert_close(features, expected["features"], rtol=0, atol=1e-5)
    assert foreign.family == "task_vectors image encoder"
    assert sorted(foreign.dropped) == [
        "model.ln_final.bias",
        "model.ln_final.weight",
        "model.logit_scale",
        "model.positional_embedding",
        "model.text_projection",
        "model.token_embedding.weight",
    ]


def test_task_vectors_head(tmp_path: Path) -> None:
    expected = load_file(FIXTURES / "task_vectors_expected.safetensors")
    head = read_foreign(FIXTURES / "task_vectors_head.pt")
    assert head.family == "classification head"
    assert head.normalises is True
    features = torch.nn.functional.normalize(expected["features"], dim=-1)
    scores = torch.nn.functional.linear(features, head.tensors["weight"])
    torch.testing.assert_close(scores + head.tensors["bias"], expected["scores"])


def test_a_whole_open_clip_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-B-32-quickgelu", **TINY_CLIP).eval()
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    foreign = read_foreign(tmp_path / "clip.safetensors")
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        expected = clip.encode_image(images)
    torch.testing.assert_close(
        our_features(foreign.tensors, images, tmp_path), expected, rtol=0, atol=1e-5
    )
    assert foreign.family == "open_clip CLIP"
    assert read_foreign(tmp_path / "tower.safetensors").family == "open_clip image tower"


def test_unknown_names_show_three_of_them_and_the_families(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({f"layer.{index}": torch.zeros(1) for index in range(5)}, file)
    with pytest.raises(UserError) as refused:
        read_foreign(file)
    message = str(refused.value)
    assert "other.safetensors: tensor names 'layer.0', 'layer.1', 'layer.2' …" in message
    assert "open_clip CLIP, task_vectors image encoder, Hugging Face CLIP" in message


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    state = read_foreign(FIXTURES / "task_vectors_encoder.pt").tensors
    state["ln_pre.bias"][0] = float("inf")
    torch.save(state, tmp_path / "broken.pt")
    with pytest.raises(MergingError, match=r"broken\.pt: tensor 'ln_pre\.bias' holds NaN"):
        read_foreign(tmp_path / "broken.pt")
