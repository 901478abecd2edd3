"""Zero-shot heads: class names and prompts through CLIP's text tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from statsmerging.data.suites import Task
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache
from statsmerging.zoo import head_sources
from statsmerging.zoo.formats.clip_names import whole_clip
from statsmerging.zoo.head_sources import ZeroShotHeads, zero_shot_head
from statsmerging.zoo.settings import BackboneSettings, ZeroShotHeadsSettings
from tests.zoo.clip_files import CLIP_ARGUMENTS, CLIP_NAME, hugging_face_names, small_clip

TASK = Task("pets", lambda: ("big_cat", "dog"), {})


def backbone(library: Any = "open_clip") -> BackboneSettings:
    return BackboneSettings(
        label="small",
        library=library,
        name=CLIP_NAME,
        weights="hub",
        tag="openai",
        image_size=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        arguments=CLIP_ARGUMENTS,
    )


def heads(**changes: Any) -> ZeroShotHeadsSettings:
    values: dict[str, Any] = {
        "kind": "zero_shot",
        "text": "base",
        "class_names": {},
        "templates": {"default": ["a photo of a {}.", "a {}"]},
    }
    return ZeroShotHeadsSettings(**{**values, **changes})


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    path = tmp_path / "clip.safetensors"
    save_file(hugging_face_names(small_clip().state_dict()), path)
    return path


def test_both_towers_come_back_from_hugging_faces_names() -> None:
    state = small_clip().state_dict()
    found = whole_clip(hugging_face_names(state))
    assert set(found) == set(state)
    assert all(torch.equal(found[name], state[name]) for name in state)
    with pytest.raises(UserError, match="no text tower"):
        whole_clip({"vision_model.x": torch.zeros(1)})


def test_a_row_is_the_mean_direction_of_its_prompts() -> None:
    clip = small_clip()
    tokenize = open_clip.get_tokenizer(CLIP_NAME)
    head = zero_shot_head(clip, tokenize, ["cat"], ["a {}.", "the {}!"], description="")
    with torch.no_grad():
        a, b = clip.encode_text(tokenize(["a cat.", "the cat!"])).double().numpy()
        scale = clip.logit_scale.exp().item()
    mean = a / np.linalg.norm(a) + b / np.linalg.norm(b)
    expected = scale * mean / np.linalg.norm(mean)
    np.testing.assert_allclose(head.weight[0].numpy(), expected, rtol=1e-5)
    assert head.normalises


def test_heads_are_made_once_from_the_file_of_the_zoo(
    clip_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = ZeroShotHeads(heads(), backbone(), clip_file, Cache(tmp_path))(TASK)
    tokenize = open_clip.get_tokenizer(CLIP_NAME)
    direct = zero_shot_head(
        small_clip(), tokenize, ["big cat", "dog"], ["a photo of a {}.", "a {}"], description=""
    )
    torch.testing.assert_close(head.weight, direct.weight)
    monkeypatch.setattr(head_sources, "zero_shot_head", None)
    again = ZeroShotHeads(heads(), backbone(), clip_file, Cache(tmp_path))(TASK)
    assert torch.equal(again.weight, head.weight)
    assert again.normalises


def test_other_names_give_another_head(clip_file: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    plain = ZeroShotHeads(heads(), backbone(), clip_file, cache)(TASK)
    renamed = heads(class_names={"pets": ["lion", "wolf"]})
    assert not torch.equal(
        ZeroShotHeads(renamed, backbone(), clip_file, cache)(TASK).weight, plain.weight
    )
    short = heads(class_names={"pets": ["lion"]})
    with pytest.raises(UserError, match="1 names, the data set has 2 classes"):
        ZeroShotHeads(short, backbone(), clip_file, cache)(TASK)


def test_no_text_tower_no_zero_shot_head(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a backbone of open_clip, small is of timm"):
        ZeroShotHeads(heads(), backbone("timm"), None, Cache(tmp_path))
    with pytest.raises(UserError, match=r"heads\.text=base: this zoo brings no CLIP"):
        ZeroShotHeads(heads(), backbone(), None, Cache(tmp_path))
