"""Images of splits: the cache, corruptions, and the check that splits are disjoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from statsmerging.choices import SPLITS, Split
from statsmerging.data.corruptions.corrupt import corrupt
from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import ImageSplit, SuiteImages, check_disjoint, load_split
from statsmerging.data.pictures import Preprocess
from statsmerging.data.settings import CorruptionSettings
from statsmerging.data.suites import Suite, Undecoded
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of
from statsmerging.store.tensor_file import TensorFile
from tests.data.task_folders import decoded

HALF = (0.5, 0.5, 0.5)


SMALL = Preprocess(16, HALF, HALF)


def test_images_are_decoded_once_and_cached(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = folder_suite(suite_root, None, [], cache=tmp_path).seen[0]
    first = load_split(task.sources["test"], SMALL, Cache(tmp_path), name="test")
    assert first.images.shape == (48, 3, 16, 16)
    assert first.images[:].dtype == torch.uint8

    monkeypatch.setattr(type(task.sources["test"]), "undecoded", None)
    second = load_split(task.sources["test"], SMALL, Cache(tmp_path), name="test")
    assert torch.equal(first.images[:], second.images[:])
    assert torch.equal(first.labels, second.labels)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_images_of_the_cache_are_made_anew(
    suite_root: Path, tmp_path: Path, damage: str
) -> None:
    source = folder_suite(suite_root, None, [], cache=tmp_path).seen[0].sources["test"]
    first = load_split(source, SMALL, Cache(tmp_path), name="test")
    images = first.images[:].clone()
    (entry,) = (tmp_path / "images").glob("*.safetensors")
    content = entry.read_bytes()
    if damage == "flipped":
        flipped = bytearray(content)
        flipped[-5000] ^= 1
        entry.write_bytes(flipped)
    else:
        entry.write_bytes(content[:-1] if damage == "cut" else b"")
    again = load_split(source, SMALL, Cache(tmp_path), name="test")
    assert torch.equal(again.images[:], images)
    assert entry.read_bytes() == content


@dataclass(frozen=True)
class Pictures:
    """A source of given images."""

    given: list[Image.Image]
    fingerprint: str = "given"
    digests: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.given)

    def undecoded(self) -> Iterator[Undecoded]:
        return (picture.copy for picture in self.given)

    def labels(self) -> np.ndarray:
        return np.zeros(len(self.given), dtype=np.int64)


def test_an_image_that_cannot_be_shown_is_named(tmp_path: Path) -> None:
    depths = [Image.fromarray(np.array([[0, top]], dtype=np.float32)) for top in (1, 2)]
    with pytest.raises(UserError, match=r"^depth test, image 1: the picture has floating-point"):
        load_split(Pictures(depths), SMALL, Cache(tmp_path), name="depth test")


class Watched(Pictures):
    """A source that notes how many images are written whenever it gives the next one."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        pixels = rng.integers(256, size=(count, 20, 20, 3), dtype=np.uint8)
        super().__init__([Image.fromarray(each) for each in pixels])
        self.written: list[int] = []
        self.behind: list[int] = []

    def undecoded(self) -> Iterator[Undecoded]:
        for row, picture in enumerate(super().undecoded()):
            self.behind.append(row - len(self.written))
            yield picture


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    source, write = Watched(200), TensorFile.write

    def noted(file: TensorFile, name: str, first: int, rows: np.ndarray) -> None:
        write(file, name, first, rows)
        if name == "images":
            source.written.append(first)

    monkeypatch.setattr(TensorFile, "write", noted)
    return source


def test_images_are_written_while_others_are_still_encoded(
    watched: Watched, tmp_path: Path
) -> None:
    split = load_split(watched, SMALL, Cache(tmp_path), name="test")
    assert watched.written == list(range(200))
    assert max(watched.behind) <= 4 * torch.get_num_threads() + 1
    expected = np.stack([SMALL.resize(image) for image in watched.given])
    assert np.array_equal(split.images[:].numpy(), expected)


def test_a_split_with_more_labels_than_images_is_refused(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pictures, "__len__", lambda self: len(self.given) + 1)
    with pytest.raises(UserError, match="test has 201 labels and 200 images"):
        load_split(watched, SMALL, Cache(tmp_path), name="test")
    assert not list(tmp_path.rglob("*.safetensors"))


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
    def digests(*rows: int) -> np.ndarray:
        return np.array([[row] * 16 for row in rows], dtype=np.uint8)

    train, validation, test = digests(1, 2), digests(3), digests(4)
    check_disjoint({"mnist": {"train": train, "validation": validation, "test": test}})
    with pytest.raises(UserError, match=r"mnist: 2 image\(s\) in both validation and test"):
        check_disjoint({"mnist": {"validation": digests(1, 2, 3), "test": digests(2, 3, 4)}})


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


NOISE = CorruptionSettings(kind="gaussian_noise", severity=5)


@pytest.fixture
def suite(suite_root: Path, tmp_path: Path) -> Suite:
    return folder_suite(suite_root, None, [], cache=tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def changed(suite: Suite, cache: Cache, corruption: CorruptionSettings) -> set[tuple[str, Split]]:
    """Task and split of all images that are not what they are without corruption."""
    clean, shown = SuiteImages(suite, SMALL, cache), SuiteImages(suite, SMALL, cache, corruption)
    return {
        (task.name, split)
        for task in suite.tasks
        for split in SPLITS
        if not torch.equal(clean.split(task, split).images[:], shown.split(task, split).images[:])
    }


def test_clean_splits_keep_their_keys(suite: Suite, cache: Cache) -> None:
    source = suite.seen[0].sources["test"]
    clean = load_split(source, SMALL, cache, name="test")
    assert clean.key == key_of([source.fingerprint, SMALL.geometry_key])
    corrupted = load_split(source, SMALL, cache, name="test", corruption=NOISE)
    assert corrupted.key != clean.key
    images = SuiteImages(suite, SMALL, cache, NOISE)
    assert images.split(suite.seen[0], "train").key == key_of(
        [suite.seen[0].sources["train"].fingerprint, SMALL.geometry_key]
    )


def test_images_are_corrupted_before_they_are_resized(suite: Suite, cache: Cache) -> None:
    source = suite.seen[0].sources["test"]
    corrupted = load_split(source, SMALL, cache, name="test", corruption=NOISE)
    expected = [SMALL.resize(corrupt(image, NOISE)) for image in decoded(source)]
    assert np.array_equal(corrupted.images[:].numpy(), np.stack(expected))


def test_digests_are_those_of_the_clean_images(suite: Suite, cache: Cache) -> None:
    source = suite.seen[0].sources["test"]
    clean = load_split(source, SMALL, cache, name="test")
    corrupted = load_split(source, SMALL, cache, name="test", corruption=NOISE)
    assert torch.equal(clean.digests, corrupted.digests)
    assert torch.equal(clean.labels, corrupted.labels)
    with pytest.raises(UserError, match=r"48 image\(s\) in both validation and test"):
        check_disjoint(
            {"parity": {"validation": clean.digests.numpy(), "test": corrupted.digests.numpy()}}
        )


@pytest.mark.parametrize("kept", [True, False])
def test_digests_alone_are_those_of_the_kept_images(
    suite: Suite, cache: Cache, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, images = suite.seen[0], SuiteImages(suite, SMALL, cache)
    alone = images.digests(task, "train", kept=kept)
    assert bool(list((cache.root / "images").glob("*.safetensors"))) is kept
    assert np.array_equal(alone, images.split(task, "train").digests.numpy())
    monkeypatch.setattr(type(task.sources["train"]), "undecoded", None)
    again = SuiteImages(suite, SMALL, Cache(cache.root)).digests(task, "train", kept=False)
    assert np.array_equal(again, alone)


def test_a_training_image_among_the_test_images_is_found(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "suite"
    shutil.copytree(suite_root, root)
    train, test = (root / "parity" / f"{it}-00000-of-00001.parquet" for it in ("train", "test"))
    planted = pa.concat_tables([pq.read_table(test), pq.read_table(train).slice(5, 1)])
    pq.write_table(planted, test)
    suite = folder_suite(root, None, [], cache=tmp_path)
    images = SuiteImages(suite, SMALL, Cache(tmp_path))
    digests = {it: images.digests(suite.seen[0], it, kept=it != "train") for it in SPLITS}
    with pytest.raises(UserError, match=r"parity: 1 image\(s\) in both train and test$"):
        check_disjoint({"parity": digests})


@pytest.mark.parametrize(
    ("protocol", "tasks", "expected"),
    [
        ("adapt_and_test", None, {("parity", "validation"), ("parity", "test")}),
        ("test_only", None, {("parity", "test")}),
        ("adapt_and_test", ["parity"], {("parity", "validation"), ("parity", "test")}),
    ],
)
def test_the_protocol_says_which_images_are_corrupted(
    suite: Suite,
    cache: Cache,
    protocol: str,
    tasks: list[str] | None,
    expected: set[tuple[str, Split]],
) -> None:
    corruption = NOISE.model_copy(update={"protocol": protocol, "tasks": tasks})
    others = {("size", split) for _, split in expected} if tasks is None else set()
    assert changed(suite, cache, corruption) == expected | others


def test_unknown_tasks_are_named(suite: Suite, cache: Cache) -> None:
    wrong = NOISE.model_copy(update={"tasks": ["parity", "colour"]})
    with pytest.raises(UserError, match="the suite has no task colour; it has parity, size"):
        SuiteImages(suite, SMALL, cache, wrong)


def split_of(contents: list[int], key: str = "images", geometry: int = 4) -> ImageSplit:
    """Images whose digests are those of the given contents, in this order."""
    rng = [np.random.default_rng(content) for content in contents]
    digests = np.stack([each.integers(256, size=16, dtype=np.uint8) for each in rng])
    pixels = torch.tensor(contents, dtype=torch.uint8)[:, None, None, None]
    return ImageSplit(
        pixels.expand(-1, 3, geometry, geometry),
        torch.arange(len(contents)),
        torch.from_numpy(digests),
        key,
    )


def contents_of(split: ImageSplit) -> list[int]:
    return split.images[:][:, 0, 0, 0].tolist()


@given(
    st.lists(st.integers(0, 200), min_size=2, max_size=120).filter(lambda them: len(set(them)) > 1),
    st.floats(0.01, 0.5),
)
@settings(deadline=None)
def test_what_is_held_out_shares_no_image_with_the_rest(contents: list[int], share: float) -> None:
    rest, held = split_of(contents).held_out(share)
    assert set(contents_of(rest)).isdisjoint(contents_of(held))
    assert sorted(contents_of(rest) + contents_of(held)) == sorted(contents)
    assert len(rest) > 0
    assert len(held) > 0
    assert rest.key != held.key
    check_disjoint({"mnist": {"train": rest.digests.numpy(), "validation": held.digests.numpy()}})


@pytest.mark.parametrize(
    ("images", "share", "held_out"),
    [(100, 0.2, 20), (101, 0.2, 21), (20, 0.2, 8), (10, 0.2, 5), (200, 0.5, 100), (3, 0.2, 1)],
)
def test_a_share_is_held_out_but_at_least_eight_and_at_most_half(
    images: int, share: float, held_out: int
) -> None:
    rest, held = split_of(list(range(images))).held_out(share)
    assert (len(rest), len(held)) == (images - held_out, held_out)


def test_content_alone_decides_what_is_held_out() -> None:
    """Order, geometry and the key of the images do not, so every run and teacher has the same."""
    contents = list(range(60))
    _, held = split_of(contents).held_out(0.2)
    order = np.random.default_rng(0).permutation(60).tolist()
    _, other = split_of(order, key="corrupted", geometry=8).held_out(0.2)
    assert set(contents_of(other)) == set(contents_of(held))
    assert contents_of(held) == sorted(contents_of(held))  # in the order of the split
    assert contents_of(other) == [content for content in order if content in contents_of(held)]


def test_copies_of_one_image_cannot_be_held_out() -> None:
    with pytest.raises(UserError, match=r"learning\.held_out=0 does without"):
        split_of([3] * 30).held_out(0.2)
