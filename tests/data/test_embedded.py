"""The embedded tasks: their form, their honesty (no leaks, no shortcuts) and their determinism."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from statsmerging.data.embedded import (
    SEEN,
    TASKS,
    UNSEEN,
    EmbeddedTask,
    LabeledImages,
    build_task,
    pretraining_images,
)
from statsmerging.data.embedded.appearance import to_bytes
from statsmerging.data.embedded.real_pictures import (
    Cropping,
    crop_splits,
    split_of,
    tiles_by_split,
)
from statsmerging.data.embedded.task import SPLITS, stratified_split, without_duplicates

RENDERED = ("street_numbers", "traffic_signs", "patterns", "garments", "printed_digits")
CROPPED = ("surfaces", "photographs", "microscopy")
SIZES = dict.fromkeys((*RENDERED, *CROPPED), (1000, 300, 500)) | {
    "digits": (1000, 300, 497),
    "faces": (100, 40, 60),
}
CLASS_COUNTS = {
    "digits": 10,
    "faces": 2,
    "surfaces": 6,
    "photographs": 8,
    "street_numbers": 10,
    "traffic_signs": 12,
    "patterns": 8,
    "garments": 8,
    "printed_digits": 10,
    "microscopy": 5,
}


@pytest.fixture(scope="module")
def tasks() -> Mapping[str, EmbeddedTask]:
    """Every task, built while no connection can be opened."""

    def refuse(*_: object) -> None:
        raise AssertionError("building an embedded task opened a connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        pretraining_images(count=48)
        return {name: build_task(name) for name in TASKS}


def hashes(examples: LabeledImages) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in examples.images]


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Coarse colours, and grey pixels, magnitudes (blind to polarity), spectra (blind to phase)."""
    colours = images.astype(np.float32).reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)) / 64
    grey = images.astype(np.float32).reshape(-1, 16, 2, 16, 2, 3).mean((2, 4, 5))
    pixels = (grey - grey.mean((1, 2), keepdims=True)) / (grey.std((1, 2), keepdims=True) + 1)
    spectra = np.log1p(np.abs(np.fft.rfft2(pixels)))
    parts = (colours, pixels, np.abs(pixels), spectra)
    return np.concatenate([part.reshape(len(images), -1) for part in parts], axis=1)


def test_the_task_table_lists_the_seen_tasks_and_then_the_unseen_ones() -> None:
    assert tuple(TASKS) == SEEN + UNSEEN
    assert (len(SEEN), len(UNSEEN)) == (8, 2)


def test_an_unknown_task_is_refused_with_the_valid_names() -> None:
    with pytest.raises(ValueError, match=r"no embedded task 'mnist'; there are: digits, faces"):
        build_task("mnist")


@pytest.mark.parametrize("name", TASKS)
def test_form(tasks: Mapping[str, EmbeddedTask], name: str) -> None:
    task = tasks[name]
    assert task.name == name
    assert len(task.classes) == len(set(task.classes)) == CLASS_COUNTS[name]
    assert tuple(task.splits) == SPLITS
    assert tuple(len(split) for split in task.splits.values()) == SIZES[name]
    for split in task.splits.values():
        assert split.images.dtype == np.uint8
        assert split.images.shape == (len(split.labels), 32, 32, 3)
        assert split.labels.dtype == np.int64
        assert set(split.labels.tolist()) == set(range(len(task.classes)))


@pytest.mark.parametrize("name", TASKS)
def test_no_image_occurs_twice(tasks: Mapping[str, EmbeddedTask], name: str) -> None:
    digests = [digest for split in tasks[name].splits.values() for digest in hashes(split)]
    assert len(digests) == len(set(digests))


@pytest.mark.parametrize("name", TASKS)
def test_a_second_build_agrees_bit_for_bit(tasks: Mapping[str, EmbeddedTask], name: str) -> None:
    again = build_task(name)
    for split, examples in tasks[name].splits.items():
        np.testing.assert_array_equal(again.splits[split].images, examples.images)
        np.testing.assert_array_equal(again.splits[split].labels, examples.labels)


def test_pretraining_images() -> None:
    examples, classes = pretraining_images()
    assert len(classes) == len(set(classes)) == 48
    assert examples.images.dtype == np.uint8
    assert examples.images.shape == (6000, 32, 32, 3)
    assert examples.labels.dtype == np.int64
    assert np.bincount(examples.labels).tolist() == [125] * 48


def test_pretraining_images_are_the_same_each_time() -> None:
    first, again = pretraining_images(count=480)[0], pretraining_images(count=480)[0]
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, first.labels)


def test_a_build_does_not_depend_on_the_process(tasks: Mapping[str, EmbeddedTask]) -> None:
    code = (
        "import hashlib; from statsmerging.data.embedded import build_task; "
        "print(hashlib.sha256(build_task('garments').splits['test'].images.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = hashlib.sha256(tasks["garments"].splits["test"].images.tobytes()).hexdigest()
    assert run.stdout.strip() == here


def test_importing_the_package_leaves_the_heavy_libraries_alone() -> None:
    code = (
        "import sys, statsmerging.data.embedded; "
        "print({'skimage', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("height", "width", "tile"), [(512, 512, 64), (172, 448, 56), (300, 451, 48)]
)
def test_tiles_of_a_picture_are_disjoint_and_every_split_gets_some(
    height: int, width: int, tile: int
) -> None:
    tiles = tiles_by_split(height, width, tile)
    covered = np.zeros((height, width), dtype=np.int64)
    for places in tiles.values():
        assert places
        for place in places:
            assert place.bottom - place.top >= tile
            assert place.right - place.left >= tile
            covered[place.top : place.bottom, place.left : place.right] += 1
    assert covered.max() == 1
    assert covered.mean() > 0.95


def test_tiles_of_the_held_out_splits_never_share_a_side() -> None:
    for row in range(10):
        for column in range(10):
            for neighbour in (split_of(row + 1, column), split_of(row, column + 1)):
                pair = {split_of(row, column), neighbour}
                assert "train" in pair or len(pair) == 2


def test_crops_lie_inside_tiles_of_their_own_split() -> None:
    # Every pixel holds the index of its split, so a crop that strays shows another's.
    picture = np.zeros((200, 300, 3), dtype=np.uint8)
    for index, places in enumerate(tiles_by_split(200, 300, 40).values()):
        for place in places:
            picture[place.top : place.bottom, place.left : place.right] = 100 + index
    cropping = Cropping(tile=40, side=(20, 40))
    splits = crop_splits("stray", [picture], cropping, lambda crops, _: to_bytes(crops))
    for index, split in enumerate(SPLITS):
        assert set(np.unique(splits[split].images)) == {100 + index}


def test_a_picture_smaller_than_a_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no tile"):
        tiles_by_split(30, 100, 40)


def test_a_stratified_split_is_disjoint_and_keeps_the_proportions() -> None:
    labels = np.repeat(np.arange(2), [60, 20])
    images = np.arange(80, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    splits = stratified_split(
        LabeledImages(images, labels), {"train": 40, "test": 40}, np.random.default_rng(0)
    )
    assert [np.bincount(split.labels).tolist() for split in splits.values()] == [[30, 10]] * 2
    drawn = np.concatenate([split.images[:, 0, 0, 0] for split in splits.values()])
    assert sorted(drawn.tolist()) == list(range(80))
    with pytest.raises(ValueError, match="need 100 of 80"):
        stratified_split(LabeledImages(images, labels), {"a": 100}, np.random.default_rng(0))


def test_duplicates_are_dropped_within_and_across_splits() -> None:
    images = np.zeros((3, 32, 32, 3), dtype=np.uint8)
    images[2] = 1
    examples = LabeledImages(images, np.arange(3))
    splits = without_duplicates({"train": examples, "test": examples})
    assert splits["train"].labels.tolist() == [0, 2]
    assert len(splits["test"]) == 0


@pytest.mark.parametrize("name", [*RENDERED, *CROPPED])
def test_mean_colour_does_not_give_the_class_away(
    tasks: Mapping[str, EmbeddedTask], name: str
) -> None:
    train, test = tasks[name].splits["train"], tasks[name].splits["test"]
    model = NearestCentroid().fit(train.images.mean((1, 2)), train.labels)
    assert model.score(test.images.mean((1, 2)), test.labels) < 0.6


@pytest.mark.parametrize("name", TASKS)
def test_labels_match_images(tasks: Mapping[str, EmbeddedTask], name: str) -> None:
    task = tasks[name]
    train, test = task.splits["train"], task.splits["test"]
    model = LogisticRegression(C=1e-3, max_iter=1000, tol=1e-1)
    model.fit(features(train.images), train.labels)
    chance = 1 / len(task.classes)
    assert model.score(features(test.images), test.labels) > chance + 0.15
