"""Corrupted splits: their own cache entries, the digests of the clean images, never training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from statsmerging.data.corruptions.corrupt import corrupt
from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import SuiteImages, check_disjoint, load_split
from statsmerging.data.pictures import Preprocess
from statsmerging.data.settings import CorruptionSettings
from statsmerging.data.suites import SPLITS, Split, Suite
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache
from statsmerging.store.hashing import key_of

HALF = (0.5, 0.5, 0.5)
SMALL = Preprocess(16, HALF, HALF)
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
        if not torch.equal(clean.split(task, split).images, shown.split(task, split).images)
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
    expected = [SMALL.resize(corrupt(image, NOISE)) for image in source.images()]
    assert np.array_equal(corrupted.images.numpy(), np.stack(expected))


def test_digests_are_those_of_the_clean_images(suite: Suite, cache: Cache) -> None:
    source = suite.seen[0].sources["test"]
    clean = load_split(source, SMALL, cache, name="test")
    corrupted = load_split(source, SMALL, cache, name="test", corruption=NOISE)
    assert torch.equal(clean.digests, corrupted.digests)
    assert torch.equal(clean.labels, corrupted.labels)
    with pytest.raises(UserError, match=r"48 image\(s\) in both validation and test"):
        check_disjoint({"parity": {"validation": clean, "test": corrupted}})


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
