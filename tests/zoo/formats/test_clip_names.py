"""Names there and back, bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from statsmerging.errors import UserError
from statsmerging.zoo.formats.clip_names import find_tower, to_hugging_face
from tests.zoo.formats.genuine import FIXTURES

PROJECTED = FIXTURES / "transformers_5" / "vision_with_projection" / "model.safetensors"
VISION = FIXTURES / "transformers_5" / "vision" / "model.safetensors"


def assert_identical(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert set(left) == set(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("file", [PROJECTED, VISION])
def test_round_trip_from_hugging_face_is_exact(file: str) -> None:
    genuine = load_file(file)
    assert_identical(to_hugging_face(find_tower(genuine).tensors), genuine)


def test_round_trip_from_open_clip_is_exact() -> None:
    tower = find_tower(load_file(PROJECTED)).tensors
    assert_identical(find_tower(to_hugging_face(tower)).tensors, tower)
    assert tower["transformer.resblocks.0.attn.in_proj_weight"].shape == (48, 16)


def test_names_of_a_vision_model_in_memory() -> None:
    """transformers 5 has no `vision_model.` in the names of a live `CLIPVisionModel`."""
    live = load_file(FIXTURES / "adapters" / "patterns" / "merged.safetensors")
    tower = find_tower(live)
    assert tower.family == "Hugging Face CLIPVisionModel"
    assert_identical(to_hugging_face(tower.tensors, prefix=""), live)


def test_position_numbers_of_old_files_are_dropped() -> None:
    state = {**load_file(PROJECTED), "vision_model.embeddings.position_ids": torch.arange(5)}
    tower = find_tower(state)
    assert tower.dropped == ("vision_model.embeddings.position_ids",)
    assert_identical(to_hugging_face(tower.tensors), load_file(PROJECTED))


def test_tensors_without_a_place_are_named() -> None:
    state = load_file(PROJECTED)
    with pytest.raises(UserError, match=r"'encoder\.layers\.0\.gate\.weight' has no place in open"):
        find_tower({**state, "vision_model.encoder.layers.0.gate.weight": torch.zeros(1)})
    del state["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(UserError, match=r"layers\.1\.self_attn\.k_proj\.bias' is missing beside"):
        find_tower(state)
    with pytest.raises(UserError, match=r"'ls_1\.gamma' has no place in Hugging Face's"):
        to_hugging_face({"ls_1.gamma": torch.zeros(1)})
