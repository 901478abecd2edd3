"""Adapters of the genuine `peft` give the weights its own merge gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from statsmerging.errors import UserError
from statsmerging.zoo.formats.clip_names import find_tower
from statsmerging.zoo.formats.foreign import read_foreign
from statsmerging.zoo.formats.lora import Adapter
from tests.zoo.formats.genuine import FIXTURES

ADAPTERS = FIXTURES / "adapters"
CLIP = FIXTURES / "transformers_5" / "clip" / "model.safetensors"


def test_transposed_layers_and_convolutions() -> None:
    merged = Adapter.read(ADAPTERS / "mixed").merge_into(
        load_file(ADAPTERS / "mixed" / "base.safetensors")
    )
    expected = load_file(ADAPTERS / "mixed" / "merged.safetensors")
    assert set(merged) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["patterns", "rslora"])
def test_adapters_of_clip(name: str) -> None:
    """Ranks and strengths by pattern; rank-stabilised with a bias and a replaced projection."""
    foreign = read_foreign(ADAPTERS / name, load_file(CLIP))
    expected = find_tower(load_file(ADAPTERS / name / "merged.safetensors")).tensors
    base = find_tower(load_file(CLIP)).tensors
    expected.setdefault("proj", base["proj"])
    assert foreign.family == "PEFT LoRA adapter"
    assert set(foreign.tensors) == set(expected)
    for tensor_name, tensor in expected.items():
        torch.testing.assert_close(foreign.tensors[tensor_name], tensor, rtol=0, atol=1e-6)
    changed = "transformer.resblocks.1.attn.in_proj_weight"
    assert not torch.allclose(foreign.tensors[changed], base[changed], atol=1e-3)


def test_an_adapter_needs_its_base() -> None:
    with pytest.raises(UserError, match=r"holds an adapter: give the model it adapts \(job\.base"):
        read_foreign(ADAPTERS / "patterns")
    vision = load_file(FIXTURES / "transformers_5" / "vision" / "model.safetensors")
    with pytest.raises(UserError, match="has no projection"):
        read_foreign(ADAPTERS / "patterns", vision)


def test_magnitudes_of_dora() -> None:
    base = find_tower(load_file(CLIP)).tensors
    adapted = read_foreign(ADAPTERS / "dora", base).tensors
    expected = find_tower(load_file(ADAPTERS / "dora" / "merged.safetensors")).tensors
    for name, tensor in expected.items():
        torch.testing.assert_close(adapted[name], tensor, rtol=0, atol=1e-6)
    changed = "transformer.resblocks.1.attn.in_proj_weight"
    assert not torch.allclose(adapted[changed], base[changed], atol=1e-3)


@pytest.mark.parametrize("rank_stabilised", [False, True])
@pytest.mark.parametrize("layer", ["transposed", "convolution"])
def test_magnitudes_in_closed_form(layer: str, rank_stabilised: bool, tmp_path: Path) -> None:
    """W' = m · V / ‖V‖ with V = W + s · B A, a norm for each output, in float64."""
    folder = shutil.copytree(ADAPTERS / "mixed", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"use_dora": True, "use_rslora": rank_stabilised}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter_model.safetensors")
    base = load_file(folder / "base.safetensors")
    start = base[f"{layer}.weight"].T if layer == "transposed" else base[f"{layer}.weight"]
    magnitude = torch.linspace(0.5, 2, len(start))
    shape = (-1,) if layer == "transposed" else (1, -1, 1, 1)  # as peft saves them
    tensors[f"base_model.model.{layer}.lora_magnitude_vector"] = magnitude.reshape(shape)
    save_file(tensors, folder / "adapter_model.safetensors")

    down, up = (
        tensors[f"base_model.model.{layer}.lora_{part}.weight"].double().flatten(1)
        for part in ("A", "B")
    )
    scale = config["lora_alpha"] / (2**0.5 if rank_stabilised else 2)
    moved = start.double().flatten(1) + scale * (up @ down)
    merged = magnitude.double()[:, None] * moved / moved.norm(dim=1, keepdim=True)
    expected = merged.T if layer == "transposed" else merged.reshape(start.shape)
    found = Adapter.read(folder).merge_into(base)[f"{layer}.weight"]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(a?){60}a{60}b"])
def test_no_pattern_takes_long(pattern: str, tmp_path: Path) -> None:
    """Each of them keeps Python's own expressions busy for longer than anybody waits."""
    folder = shutil.copytree(ADAPTERS / "mixed", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "alpha_pattern": {pattern: 1000, "convolution": 3}})
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace("transposed", "a" * 60 + "c"): value for name, value in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    base = load_file(folder / "base.safetensors")
    base["a" * 60 + "c.weight"] = base["transposed.weight"]
    merged = Adapter.read(folder).merge_into(base)
    assert merged["convolution.weight"].isfinite().all()


def test_more_patterns_than_anybody_writes(tmp_path: Path) -> None:
    folder = shutil.copytree(ADAPTERS / "mixed", tmp_path / "adapter")
    adapter = Adapter.read(folder)
    adapter.config["rank_pattern"] = {f"layer{number}": 2 for number in range(5_000_001)}
    with pytest.raises(UserError, match="rank_pattern has too many patterns: 5000001"):
        adapter.merge_into(load_file(folder / "base.safetensors"))


def test_the_first_pattern_that_matches_counts(tmp_path: Path) -> None:
    base = load_file(ADAPTERS / "mixed" / "base.safetensors")

    def merged(patterns: dict[str, int]) -> torch.Tensor:
        adapter = Adapter.read(ADAPTERS / "mixed")
        adapter.config["alpha_pattern"] = patterns
        return adapter.merge_into(base)["convolution.weight"] - base["convolution.weight"]

    alone = merged({"convolution": 16})
    assert torch.equal(merged({"conv.*": 16, "convolution": 4}), alone)
    assert torch.equal(merged({"conv": 4, "olution": 4, "^convolution": 16}), alone)
    torch.testing.assert_close(merged({"convolution": 4}) * 4, alone)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"peft_type": "VERA"}, "peft_type is 'VERA', only LORA is read"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changes the base weights"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication' is not supported"),
        ({"feature_of_tomorrow": True}, "'feature_of_tomorrow' is not supported"),
        ({"r": None}, "r or a value of rank_pattern is no positive number"),
        ({"alpha_pattern": {"plain": 0}}, "or a value of alpha_pattern is no positive number"),
        ({"alpha_pattern": [1]}, "alpha_pattern is no mapping"),
        ({"alpha_pattern": {"(": 1}}, r"pattern '\(' is no regular expression"),
        ({"r": 3}, "rank 2, its config says 3"),
    ],
)
def test_configs_that_are_not_understood(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(ADAPTERS / "mixed", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UserError, match=expected):
        Adapter.read(folder).merge_into(load_file(folder / "base.safetensors"))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("absent.lora_A.weight", (2, 5), r"'absent.*' has no counterpart 'absent\.weight'"),
        ("transposed.lora_A.weight", (2, 4), r"\(2, 4\) does not fit \(5, 6\)"),
        ("absent.lora_magnitude_vector", (6,), "lora_magnitude_vector' has no counterpart"),
        ("transposed.lora_magnitude_vector", (7,), r"vector': \(7,\) does not fit \(5, 6\)"),
        ("transposed.bias", (7,), r"transposed\.bias': \(7,\) does not fit \(6,\)"),
        ("lonely.lora_B.weight", (5, 2), r"lonely\.lora_B\.weight' has no counterpart"),
    ],
)
def test_tensors_that_do_not_fit(
    name: str, shape: tuple[int, ...], expected: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(ADAPTERS / "mixed", tmp_path / "adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"base_model.model.{name}"] = torch.zeros(shape)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match=expected):
        Adapter.read(folder).merge_into(load_file(folder / "base.safetensors"))
