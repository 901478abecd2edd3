"""Zoos from files in the genuine layouts of their families."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import SuiteImages
from statsmerging.errors import MissingFilesError, UserError
from statsmerging.store.cache import Cache
from statsmerging.zoo import experts
from statsmerging.zoo.backbones import create_backbone, preprocess_of
from statsmerging.zoo.experts import Zoo, ZooFiles, locate, zoo_from_files
from statsmerging.zoo.formats.clip_names import find_tower
from statsmerging.zoo.formats.foreign import weights_for
from statsmerging.zoo.head_sources import ProbedHeads
from statsmerging.zoo.network import Network
from statsmerging.zoo.settings import (
    BackboneSettings,
    FileHeadsSettings,
    FileSizes,
    FusionBenchZooSettings,
    LocalZooSettings,
    OwnHeadsSettings,
    ProbedHeadsSettings,
    TaskVectorsZooSettings,
)
from tests.zoo.formats.genuine import FIXTURES, tiny_clip
from tests.zoo.test_backbones import settings as timm_settings

TASKS = ["parity", "size"]
PROBED = ProbedHeadsSettings(kind="probed")
OWN = OwnHeadsSettings(kind="own")


def backbone(weights: str = "hub", mlp_ratio: float = 2.0) -> BackboneSettings:
    return BackboneSettings(
        label="tiny",
        library="open_clip",
        name="ViT-B-32-quickgelu",
        weights=weights,
        tag="openai",
        image_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        arguments=tiny_clip(mlp_ratio),
    )


def open_zoo(
    suite_root: Path, cache: Path, settings: Any, heads: Any, network: BackboneSettings
) -> Zoo:
    suite = folder_suite(suite_root, TASKS, [], cache=cache / "datasets")
    images = SuiteImages(suite, preprocess_of(network), Cache(cache))
    files = locate(settings, TASKS)
    return zoo_from_files(network, files, heads, images, cache=Cache(cache), accelerator="cpu")


def fusion_bench(root: Path) -> FusionBenchZooSettings:
    return FusionBenchZooSettings(
        kind="fusion_bench",
        root=root,
        seed=None,
        series="clip-vit-base-patch32",
        base="openai/clip",
        expert="tanganke/clip_{task}",
        names={"parity": "parity", "size": "the-size"},
        gigabytes={"clip-vit-base-patch32": FileSizes(base=0.6, expert=0.35)},
    )


def hub_mirror(root: Path, version: str) -> Path:
    """The hub's layout: a whole CLIP as the base, image towers without projection as experts."""
    genuine = FIXTURES / version
    shutil.copytree(genuine / "clip", root / "openai" / "clip")
    for repository in ("clip_parity", "clip_the-size"):
        state = load_file(genuine / "vision" / "model.safetensors")
        changed = {
            name: value + 0.01 if value.is_floating_point() else value
            for name, value in state.items()
        }
        (root / "tanganke" / repository).mkdir(parents=True)
        save_file(changed, root / "tanganke" / repository / "model.safetensors")
    return root


@pytest.mark.parametrize("version", ["transformers_4", "transformers_5"])
def test_experts_of_the_hub(version: str, suite_root: Path, tmp_path: Path) -> None:
    root = hub_mirror(tmp_path / "hub", version)
    zoo = open_zoo(suite_root, tmp_path / "cache", fusion_bench(root), PROBED, backbone())
    genuine = FIXTURES / version
    base = find_tower(load_file(genuine / "clip" / "model.safetensors")).tensors
    expected = find_tower(load_file(genuine / "vision" / "model.safetensors")).tensors
    expert = zoo.experts["size"].state
    assert set(zoo.pretrained) == set(expert) == set(base)
    assert torch.equal(zoo.pretrained["conv1.weight"], base["conv1.weight"])
    assert torch.equal(expert["proj"], base["proj"])
    torch.testing.assert_close(expert["conv1.weight"], expected["conv1.weight"] + 0.01)
    assert zoo.experts["parity"].head.weight.shape == (2, 12)


def test_foreign_files_are_converted_once(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = hub_mirror(tmp_path / "hub", "transformers_5")
    first = open_zoo(suite_root, tmp_path / "cache", fusion_bench(root), PROBED, backbone())

    def only_the_base(network: Any, source: Path, base: Any = None) -> Any:
        assert base is None, f"{source} was converted again"
        return weights_for(network, source)

    monkeypatch.setattr(experts, "weights_for", only_the_base)
    again = open_zoo(suite_root, tmp_path / "cache", fusion_bench(root), PROBED, backbone())
    assert again.hashes == first.hashes


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    root = hub_mirror(tmp_path / "hub", "transformers_5")
    shutil.rmtree(root / "tanganke")
    with pytest.raises(MissingFilesError) as missing:
        locate(fusion_bench(root), TASKS)
    assert len(missing.value.files) == 2
    assert "tanganke/clip_the-size/model.safetensors (about 0.35 GB)" in str(missing.value)


def test_image_towers_have_no_heads_of_their_own(suite_root: Path, tmp_path: Path) -> None:
    root = hub_mirror(tmp_path / "hub", "transformers_5")
    with pytest.raises(UserError, match="has no head: choose heads=zero_shot, probed or files"):
        open_zoo(suite_root, tmp_path / "cache", fusion_bench(root), OWN, backbone())


def test_task_vectors_files(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    for name in ("Parity", "size"):
        (root / name).mkdir(parents=True)
        shutil.copy(FIXTURES / "task_vectors_encoder.pt", root / name / "finetuned.pt")
        shutil.copy(FIXTURES / "task_vectors_head.pt", root / f"head_{name}.pt")
    shutil.copy(FIXTURES / "task_vectors_encoder.pt", root / "zeroshot.pt")
    settings = TaskVectorsZooSettings(
        kind="task_vectors",
        root=root,
        seed=None,
        base="zeroshot.pt",
        expert="{task}/finetuned.pt",
        head="head_{task}.pt",
        names={"parity": "Parity", "size": "size"},
        gigabytes=FileSizes(base=0.5, expert=0.5),
    )
    network = backbone(mlp_ratio=4.0)
    # The genuine head is for other classes than these tasks have.
    with pytest.raises(UserError, match=r"the head of parity has \d+ classes, parity has 2"):
        open_zoo(suite_root, tmp_path / "cache", settings, OWN, network)
    zoo = open_zoo(suite_root, tmp_path / "cache", settings, PROBED, network)
    assert torch.equal(zoo.pretrained["proj"], zoo.experts["parity"].state["proj"])
    (root / "Parity" / "finetuned.pt").unlink()
    with pytest.raises(MissingFilesError, match=r"Parity/finetuned\.pt \(about 0\.5 GB\)"):
        locate(settings, TASKS)


def test_local_experts_may_be_adapters_or_plain_state_dicts(
    suite_root: Path, tmp_path: Path
) -> None:
    clip = FIXTURES / "transformers_5" / "clip" / "model.safetensors"
    root = tmp_path / "experts"
    shutil.copytree(FIXTURES / "adapters" / "rslora", root / "parity")
    tower = find_tower(load_file(clip)).tensors
    torch.save({name: value + 0.5 for name, value in tower.items()}, root / "size.pt")
    settings = LocalZooSettings(kind="local", root=root, seed=None)
    zoo = open_zoo(suite_root, tmp_path / "cache", settings, PROBED, backbone(str(clip)))
    merged = find_tower(load_file(FIXTURES / "adapters" / "rslora" / "merged.safetensors")).tensors
    layer = "transformer.resblocks.1.attn.in_proj_weight"
    torch.testing.assert_close(zoo.experts["parity"].state[layer], merged[layer])
    assert torch.equal(zoo.experts["size"].state[layer], tower[layer] + 0.5)

    heads = tmp_path / "heads"
    heads.mkdir()
    save_file({"weight": torch.ones(2, 12)}, heads / "parity.safetensors")
    shutil.copy(FIXTURES / "task_vectors_head.pt", heads / "head_size.pt")
    with pytest.raises(UserError, match=r"the head of size has \d+ classes, size has 2"):
        open_zoo(
            suite_root,
            tmp_path / "cache",
            settings,
            FileHeadsSettings(kind="files", root=heads),
            backbone(str(clip)),
        )
    save_file({"weight": torch.ones(2, 7)}, heads / "size.safetensors")
    with pytest.raises(UserError, match="the head of size takes 7 features, the backbone gives 12"):
        open_zoo(
            suite_root,
            tmp_path / "cache",
            settings,
            FileHeadsSettings(kind="files", root=heads),
            backbone(str(clip)),
        )
    (root / "size.pt").unlink()
    with pytest.raises(UserError, match=r"size\.safetensors: no such file; nor is there size\.pt"):
        locate(settings, TASKS)


def test_local_experts_may_be_whole_classifiers_in_shards(
    suite_root: Path, small_weights: Path, tmp_path: Path
) -> None:
    """One expert is a folder with an index, one a Lightning checkpoint; both bring their heads."""
    network, root = small_network(small_weights), tmp_path / "experts"
    state = load_file(small_weights)
    torch.manual_seed(0)
    head = {"head.weight": torch.randn(2, 24), "head.bias": torch.randn(2)}
    parity = {**{name: value + 0.5 for name, value in state.items()}, **head}
    (root / "parity").mkdir(parents=True)
    save_file(parity, root / "parity" / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(parity, "model-00001-of-00001.safetensors")
    index = root / "parity" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    content = {f"model.{name}": value + 0.25 for name, value in {**state, **head}.items()}
    torch.save({"state_dict": content}, root / "size.ckpt")

    settings = LocalZooSettings(kind="local", root=root, seed=None)
    assert set(locate(settings, TASKS).by_name) == {
        "parity/backbone/model.safetensors.index.json",
        "parity/backbone/model-00001-of-00001.safetensors",
        "size/backbone",
    }
    zoo = open_zoo(suite_root, tmp_path / "cache", settings, OWN, network)
    for task, change, head_change in (("parity", 0.5, 0), ("size", 0.25, 0.25)):
        expert = zoo.experts[task]
        assert torch.equal(expert.head.weight, head["head.weight"] + head_change)
        for name, value in expert.state.items():
            assert torch.equal(value, zoo.pretrained[name] + change)


def small_network(weights: Path) -> BackboneSettings:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    return timm_settings(weights=str(weights), arguments=sizes)


def test_a_probe_is_that_of_its_number_of_classes(
    suite_root: Path, small_weights: Path, tmp_path: Path
) -> None:
    """The same images with one class more, which none of them shows, need another head."""
    network, cache = small_network(small_weights), Cache(tmp_path / "cache")
    suite = folder_suite(suite_root, TASKS, [], cache=tmp_path / "cache" / "datasets")
    preprocess = preprocess_of(network)
    made = Network(create_backbone(network), preprocess, torch.device("cpu"), network)
    probed = ProbedHeads(made, made.initial, SuiteImages(suite, preprocess, cache), cache)
    task = suite.tasks[0]
    wider = replace(task, read_classes=lambda: (*task.classes, "neither"))
    assert [len(probed(one).weight) for one in (task, wider, task)] == [2, 3, 2]


def test_a_task_of_one_class_is_named(
    suite_root: Path, small_weights: Path, tmp_path: Path
) -> None:
    suite = folder_suite(suite_root, TASKS, [], cache=tmp_path / "cache" / "datasets")
    alone = replace(suite.seen[1], read_classes=lambda: ("only",))
    network = small_network(small_weights)
    images = SuiteImages(
        replace(suite, seen=(suite.seen[0], alone)),
        preprocess_of(network),
        Cache(tmp_path / "cache"),
    )
    heads = tmp_path / "heads"
    heads.mkdir()
    for classes, task in enumerate(reversed(TASKS), start=1):
        save_file({"weight": torch.ones(classes, 24)}, heads / f"{task}.safetensors")
    with pytest.raises(UserError, match="size has one class, so every model is right: leave it"):
        zoo_from_files(
            network,
            ZooFiles({}),
            FileHeadsSettings(kind="files", root=heads),
            images,
            cache=Cache(tmp_path / "cache"),
            accelerator="cpu",
        )
