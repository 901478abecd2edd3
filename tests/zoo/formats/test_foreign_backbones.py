"""Weights of a timm network as training leaves them: the whole network's scores come out again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from statsmerging.errors import UserError
from statsmerging.merging import MergingError
from statsmerging.zoo.backbones import create_backbone
from statsmerging.zoo.experts import holds_expert
from statsmerging.zoo.formats.foreign import weights_for
from statsmerging.zoo.heads import classifier_in, read_head
from tests.zoo.formats.genuine import tiny_clip
from tests.zoo.test_backbones import SMALL, settings

State = dict[str, Tensor]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(name: str = "vit_tiny_patch16_224", classes: int = 3, seed: int = 0) -> Any:
    """A small network of timm; some layer of each has a name of its own for the classifier."""
    arguments: dict[str, Any] = {
        "vit_tiny_patch16_224": {**SMALL, "img_size": 32},
        "resnet10t": {"layers": [1] * 4, "channels": [4, 8, 8, 16], "stem_width": 4},
        "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)},
    }[name]
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=classes, **arguments).eval()


def scores(source: Path, network: str = "vit_tiny_patch16_224", **options: Any) -> Tensor:
    """Of our head on our backbone's features, both read from a source."""
    backbone = small(network, classes=0, seed=1)
    head = classifier_in(source, backbone)
    assert head is not None
    backbone.load_state_dict(weights_for(backbone, source, **options))
    with torch.inference_mode():
        result: Tensor = head(backbone(IMAGES))
    return result


def expected(network: nn.Module) -> Tensor:
    with torch.inference_mode():
        result: Tensor = network(IMAGES)
    return result


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t", "convnext_atto"])
def test_the_classifier_of_the_architecture_is_the_head(name: str, tmp_path: Path) -> None:
    """head.* of a vision transformer, fc.* of a ResNet, head.fc.* of a ConvNeXt."""
    whole = small(name)
    save_file(whole.state_dict(), tmp_path / "a.safetensors")
    assert not holds_expert(tmp_path / "a.safetensors")
    torch.testing.assert_close(scores(tmp_path / "a.safetensors", name), expected(whole))


@pytest.mark.parametrize("name", ["fc", "classifier", "head.fc", "heads.head", "linear"])
def test_the_classifier_may_have_another_usual_name(name: str, tmp_path: Path) -> None:
    whole = small()
    state = {key.replace("head.", f"{name}."): value for key, value in whole.state_dict().items()}
    torch.save(state, tmp_path / "a.pt")
    torch.testing.assert_close(scores(tmp_path / "a.pt"), expected(whole))
    # A file of heads may hold the head under its name, too.
    torch.save({key: state[key] for key in state if key.startswith(name)}, tmp_path / "head.pt")
    assert torch.equal(read_head(tmp_path / "head.pt").weight, whole.head.weight)


def lightning(state: State) -> dict[str, Any]:
    inside = {f"model.{name}": value for name, value in state.items()}
    return {"state_dict": {**inside, "loss.weight": torch.ones(3)}, "epoch": 1}


WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    "both": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "averaged": lambda state: {
        "n_averaged": torch.tensor(9),
        **{f"module.{name}": value for name, value in state.items()},
    },
    "Lightning": lightning,
    "a backbone beside its head": lambda state: {
        f"model.{name}" if name.startswith("head.") else f"model.backbone.{name}": value
        for name, value in state.items()
    },
    "an average beside it": lambda state: {
        **{f"model.{name}": torch.zeros_like(value) for name, value in state.items()},
        **{f"model_ema.module.{name}": value for name, value in state.items()},
    },
}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("kind", WRAPPED)
def test_what_training_puts_around_a_network_comes_off(
    kind: str, suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, path = small(), tmp_path / f"last checkpoint.{suffix}"
    content = WRAPPED[kind](whole.state_dict())
    if suffix == "ckpt":
        torch.save(content, path)
    else:
        save_file(content.get("state_dict", content), path)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(scores(path), expected(whole))
    assert ("its moving average, model_ema.module.*, is read" in caplog.text) == (
        kind == "an average beside it"
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float64, 0),
        (torch.float16, 1e-2),
        (torch.bfloat16, 5e-2),
        (torch.float8_e4m3fn, 1),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_precisions(dtype: torch.dtype, tolerance: float, suffix: str, tmp_path: Path) -> None:
    whole, path = small(), tmp_path / f"a.{suffix}"
    state = {name: value.to(dtype) for name, value in whole.state_dict().items()}
    torch.save(state, path) if suffix == "pt" else save_file(state, path)
    torch.testing.assert_close(scores(path), expected(whole), rtol=0, atol=tolerance)
    whole.load_state_dict({name: value.float() for name, value in state.items()})
    torch.testing.assert_close(scores(path), expected(whole), rtol=0, atol=1e-6)


def test_counted_batches_may_be_missing(tmp_path: Path) -> None:
    whole = small("resnet10t")
    state = {name: value for name, value in whole.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "old.safetensors")
    torch.testing.assert_close(scores(tmp_path / "old.safetensors", "resnet10t"), expected(whole))


def test_a_resampled_position_embedding_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    larger = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL, img_size=64)
    save_file(larger.state_dict(), tmp_path / "larger.safetensors")
    with caplog.at_level(logging.INFO):
        weights_for(small(classes=0), tmp_path / "larger.safetensors")
    assert "pos_embed is resampled from (1, 65, 24) to (1, 17, 24)" in caplog.text


def test_positions_of_another_resolution_are_refused(tmp_path: Path) -> None:
    clip = settings(library="open_clip", name="ViT-B-32-quickgelu", arguments=tiny_clip(2.0))
    tower = create_backbone(clip)
    state = tower.state_dict()
    state["positional_embedding"] = torch.zeros(17, 16)
    save_file(state, tmp_path / "larger.safetensors")
    with pytest.raises(UserError, match="has embeddings of 17 positions, the backbone of 5: it"):
        weights_for(tower, tmp_path / "larger.safetensors")


def test_two_classifiers_together_are_no_head(tmp_path: Path) -> None:
    distilled = timm.create_model(
        "deit_tiny_distilled_patch16_224", num_classes=3, **SMALL, img_size=32
    )
    save_file(distilled.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="head and head_dist together are no one head"):
        classifier_in(tmp_path / "a.safetensors", distilled)


def test_an_adapter_brings_the_head_it_was_trained_with(tmp_path: Path) -> None:
    """`modules_to_save=["head"]`: the closed form, in float64, and the saved classifier."""
    whole, folder = small(), tmp_path / "adapter"
    folder.mkdir()
    down, up = torch.randn(2, 24), torch.randn(72, 2)
    head = {"weight": torch.randn(3, 24), "bias": torch.randn(3)}
    saved = {
        "blocks.0.attn.qkv.lora_A.weight": down,
        "blocks.0.attn.qkv.lora_B.weight": up,
        **{f"head.{name}": value for name, value in head.items()},
    }
    save_file(
        {f"base_model.model.{name}": value for name, value in saved.items()},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "use_rslora": True}
    config |= {"modules_to_save": ["head"], "target_modules": ["qkv"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))

    base = {name: value for name, value in whole.state_dict().items() if "head" not in name}
    found = scores(folder, base=base)
    changed = base["blocks.0.attn.qkv.weight"].double() + 8 / 2**0.5 * (up.double() @ down.double())
    state = {**base, "blocks.0.attn.qkv.weight": changed.float()}
    whole.load_state_dict({**state, **{f"head.{name}": value for name, value in head.items()}})
    torch.testing.assert_close(found, expected(whole), rtol=0, atol=1e-5)


def test_a_network_without_a_classifier(tmp_path: Path) -> None:
    save_file(small(classes=0).state_dict(), tmp_path / "a.safetensors")
    assert classifier_in(tmp_path / "a.safetensors", small(classes=0)) is None


def test_names_of_tensors_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    state = {**small(classes=0).state_dict(), "\x1b]52;c;cHduZWQ=\x07\x1b[2J": torch.zeros(1)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(MergingError) as refused:
        weights_for(small(classes=0), tmp_path / "a.safetensors")
    assert str(refused.value).isprintable()


def test_networks_with_tied_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.second = nn.Linear(2, 2)

    monkeypatch.setattr(timm, "create_model", lambda *_, **__: Tied())
    with pytest.raises(UserError, match=r"ties first\.weight to second\.weight; networks with"):
        create_backbone(settings())
