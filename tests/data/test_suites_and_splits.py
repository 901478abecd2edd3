"""Suites from folders, the image cache, and the proof that splits are disjoint."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import ImageSplit, SuiteImages, check_disjoint, load_split
from statsmerging.data.pictures import Preprocess
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocess(16, HALF, HALF)


def test_folder_suite_reads_tasks_without_network(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    suite = folder_suite(suite_root, None, [], cache=tmp_path)
    assert [task.name for task in suite.seen] == ["parity", "size"]
    parity = suite.seen[0]
    assert parity.classes == ("even", "odd")
    assert {split: len(source) for split, source in parity.sources.items()} == dict.fromkeys(
        ("train", "validation", "test"), 48
    )
    assert set(parity.sources["test"].labels().tolist()) == {0, 1}
    unseen = folder_suite(suite_root, ["parity", "size"], [], cache=tmp_path)
    assert unseen.unseen == ()


def test_missing_validation_split_is_carved_from_train(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "suite"
    shutil.copytree(suite_root, root)
    (root / "parity" / "validation-00000-of-00001.parquet").unlink()
    suite = folder_suite(root, None, [], cache=tmp_path / "cache")
    sources = suite.seen[0].sources
    assert (len(sources["train"]), len(sources["validation"])) == (44, 4)
    assert sources["train"].fingerprint != sources["validation"].fingerprint
    images = SuiteImages(suite, SMALL, Cache(tmp_path / "cache"))
    check_disjoint({"parity": {split: images.split(suite.seen[0], split) for split in sources}})


def test_mistakes_in_a_folder_are_named(suite_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        folder_suite(tmp_path / "nowhere", None, [], cache=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no task"):
        folder_suite(tmp_path / "empty", None, [], cache=tmp_path)
    with pytest.raises(UserError, match="has no task shape; it has parity, size"):
        folder_suite(suite_root, ["parity", "shape"], [], cache=tmp_path)
    with pytest.raises(UserError, match="names size more than once"):
        folder_suite(suite_root, ["size", "size"], [], cache=tmp_path)
    with pytest.raises(UserError, match="at least two tasks"):
        folder_suite(suite_root, ["parity"], [], cache=tmp_path)
    with pytest.raises(UserError, match=r"suite\.tasks and suite\.unseen both name size"):
        folder_suite(suite_root, ["parity", "size"], ["size"], cache=tmp_path)


def test_truncated_parquet_names_the_file(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "suite"
    shutil.copytree(suite_root, root)
    broken = root / "size" / "test-00000-of-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"size/test-00000-of-00001\.parquet is not a whole"):
        folder_suite(root, None, [], cache=tmp_path / "cache")


def test_a_test_split_without_labels_is_refused(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "suite"
    shutil.copytree(suite_root, root)
    file = root / "size" / "test-00000-of-00001.parquet"
    hidden = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "arrow"))
    hidden.map(lambda row: {**row, "label": -1}).to_parquet(str(file))
    with pytest.raises(UserError, match=r"size: 48 test picture\(s\) have no label"):
        folder_suite(root, None, [], cache=tmp_path / "cache")


def test_images_are_decoded_once_and_cached(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = folder_suite(suite_root, None, [], cache=tmp_path).seen[0]
    first = load_split(task.sources["test"], SMALL, Cache(tmp_path), name="test")
    assert first.images.shape == (48, 3, 16, 16)
    assert first.images.dtype == torch.uint8

    monkeypatch.setattr(type(task.sources["test"]), "images", None)
    second = load_split(task.sources["test"], SMALL, Cache(tmp_path), name="test")
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_images_of_the_cache_are_made_anew(
    suite_root: Path, tmp_path: Path, damage: str
) -> None:
    source = folder_suite(suite_root, None, [], cache=tmp_path).seen[0].sources["test"]
    first = load_split(source, SMALL, Cache(tmp_path), name="test")
    images = first.images.clone()
    (entry,) = (tmp_path / "images").glob("*.safetensors")
    content = entry.read_bytes()
    if damage == "flipped":
        flipped = bytearray(content)
        flipped[-5000] ^= 1
        entry.write_bytes(flipped)
    else:
        entry.write_bytes(content[:-1] if damage == "cut" else b"")
    again = load_split(source, SMALL, Cache(tmp_path), name="test")
    assert torch.equal(again.images, images)
    assert entry.read_bytes() == content


@dataclass(frozen=True)
class Pictures:
    """A source of given images."""

    given: list[Image.Image]
    fingerprint: str = "given"

    def __len__(self) -> int:
        return len(self.given)

    def images(self) -> Iterator[Image.Image]:
        return iter(self.given)

    def labels(self) -> np.ndarray:
        return np.zeros(len(self.given), dtype=np.int64)


def test_an_image_that_cannot_be_shown_is_named(tmp_path: Path) -> None:
    depths = [Image.fromarray(np.array([[0, top]], dtype=np.float32)) for top in (1, 2)]
    with pytest.raises(UserError, match=r"^depth test, image 1: the picture has floating-point"):
        load_split(Pictures(depths), SMALL, Cache(tmp_path), name="depth test")


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^depth test holds no image$"):
        load_split(Pictures([]), SMALL, Cache(tmp_path), name="depth test")


def test_other_geometry_is_another_cache_entry(suite_root: Path, tmp_path: Path) -> None:
    source = folder_suite(suite_root, None, [], cache=tmp_path).seen[0].sources["test"]
    small = load_split(source, SMALL, Cache(tmp_path), name="test")
    large = load_split(source, Preprocess(24, HALF, HALF), Cache(tmp_path), name="test")
    shifted = load_split(
        source, Preprocess(16, (0.4, 0.4, 0.4), HALF), Cache(tmp_path), name="test"
    )
    assert small.key == shifted.key != large.key
    assert torch.equal(small.digests, large.digests)


def test_shared_images_are_counted() -> None:
    def split(*rows: int) -> ImageSplit:
        digests = torch.tensor([[row] * 16 for row in rows], dtype=torch.uint8)
        return ImageSplit(torch.zeros(len(rows), 3, 1, 1), torch.zeros(len(rows)), digests, "key")

    check_disjoint({"mnist": {"train": split(1, 2), "validation": split(3), "test": split(4)}})
    with pytest.raises(UserError, match=r"mnist: 2 image\(s\) in both validation and test"):
        check_disjoint({"mnist": {"validation": split(1, 2, 3), "test": split(2, 3, 4)}})


def test_preprocess_resizes_crops_and_normalises() -> None:
    wide = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8), (30, 1)))
    pixels = SMALL.resize(wide)
    assert pixels.shape == (3, 16, 16)
    # The shorter side became 16, so the crop shows the middle half of the width.
    assert 13 <= pixels[0, 0, 0] <= 16
    assert 43 <= pixels[0, 0, -1] <= 46
    normalised = Preprocess(2, (0.5, 0.0, 1.0), (0.5, 1.0, 2.0)).normalise(
        torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    )
    expected = torch.tensor([[-1.0, 1.0], [0.0, 1.0], [-0.5, 0.0]]).view(1, 3, 1, 2)
    torch.testing.assert_close(normalised, expected)
