"""Tasks made of published splits: columns, classes, labels, and the validation split."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.images import SuiteImages, check_disjoint
from statsmerging.data.pictures import Preprocess
from statsmerging.data.settings import DatasetLayout
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache
from tests.data.task_folders import (
    NUMBERS,
    alternating,
    assert_all_read,
    content,
    load,
    png,
    shade,
    write_data,
    write_parquet,
    write_pictures,
)

HALF = (0.5, 0.5, 0.5)


SMALL = Preprocess(16, HALF, HALF)


# Classes and labels


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["dog", "cat"], ("cat", "dog")),
        ([10, 2], ("2", "10")),
        ([1.0, 0.0], ("0", "1")),
        ([True, False], ("0", "1")),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_labels_of_every_type(
    tmp_path: Path, labels: list[Any], classes: tuple[str, ...], described: bool
) -> None:
    folder = tmp_path / "task"
    for split, numbers in NUMBERS.items():
        told = [labels[number % 2] for number in numbers]
        write_parquet(folder / f"{split}.parquet", numbers, told, described=described)
    task = load(folder)
    assert task.classes == classes
    names = [label if isinstance(label, str) else str(int(label)) for label in labels]
    for split, numbers in NUMBERS.items():
        assert content(task, split) == alternating(numbers, names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0, 0.0, 1.0], "label '0.5' is a float; expected are text and whole numbers"),
        ([b"a", b"b", b"a", b"b"], "label .* is a bytes; expected are text and whole numbers"),
        ([0, 1, 2, 1], "label 2, expected 0 to 1"),
        ([0, 1, -7, 1], "label -7, expected 0 to 1"),
        ([0, 1, -1, 1], r"1 test picture\(s\) have no label"),
        ([0, 1, None, 1], r"1 test picture\(s\) have no label"),
        (["even", "odd", "<b>", "odd"], "test split: '<b>' is none of the classes 'even', 'odd'"),
    ],
)
def test_labels_that_tell_no_class_are_refused(
    tmp_path: Path, labels: list[Any], message: str
) -> None:
    folder = write_data(tmp_path / "task")
    file = folder / "test-00000-of-00001.parquet"
    write_parquet(file, NUMBERS["test"], labels, names=["even", "odd"])
    with pytest.raises(UserError, match=message):
        load(folder)


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "task")
    file = folder / "test-00000-of-00001.parquet"
    write_parquet(file, NUMBERS["test"], [1, 0, 1, 0], names=["odd", "even"])
    assert_all_read(load(folder), ["even", "odd"])
    # Without names, the numbers are those of the named ones.
    write_parquet(file, NUMBERS["test"], [0, 1, 0, 1])
    assert_all_read(load(folder), ["even", "odd"])
    write_parquet(file, NUMBERS["test"], [0, 1, 0, 1], names=["even", "uneven"])
    with pytest.raises(UserError, match="'uneven' is none of the classes 'even', 'odd'"):
        load(folder)


@pytest.mark.parametrize("given", [None, ["low", "high"]])
def test_two_classes_of_one_name_are_refused(tmp_path: Path, given: list[str] | None) -> None:
    folder = write_data(tmp_path / "task", names=["same", "same"])
    with pytest.raises(UserError, match="two classes have the same name"):
        load(folder, DatasetLayout(classes=given))


def test_given_names_stand_in_the_place_of_the_published_ones(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "task")
    task = load(folder, DatasetLayout(classes=["low", "high"]))
    assert content(task, "test") == alternating(NUMBERS["test"], ["low", "high"])
    with pytest.raises(UserError, match="3 class names are given for 2 classes"):
        load(folder, DatasetLayout(classes=["low", "middle", "high"]))


def test_a_class_may_be_absent_from_a_split(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task", classes=("a", "b", "c"))
    shutil.rmtree(folder / "test" / "a")
    task = load(folder)
    assert task.classes == ("a", "b", "c")
    assert content(task, "test") == {20: "c", 22: "b", 23: "c"}


def test_a_task_of_one_class_is_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task", classes=("only",))
    with pytest.raises(UserError, match="has one class, 'only'; a task needs two or more"):
        load(folder)


@pytest.mark.parametrize("missing", ["column", "-1", "null"])
def test_validation_pictures_need_no_labels(tmp_path: Path, missing: str) -> None:
    folder = write_data(tmp_path / "task")
    numbers = NUMBERS["validation"]
    labels = {"column": None, "-1": [-1] * 4, "null": [None, 1, None, 1]}[missing]
    write_parquet(
        folder / "validation-00000-of-00001.parquet", numbers, labels, names=["even", "odd"]
    )
    task = load(folder)
    known = alternating(numbers, ["unknown", "odd" if missing == "null" else "unknown"])
    assert content(task, "validation") == known
    assert content(task, "test") == alternating(NUMBERS["test"], ["even", "odd"])


def test_validation_pictures_need_no_class_folders(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task")
    for file in [*(folder / "validation").rglob("*.png")]:
        file.rename(folder / "validation" / file.name)
    numbers = NUMBERS["validation"]
    assert content(load(folder), "validation") == dict.fromkeys(numbers, "unknown")


def test_columns_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    for split, numbers in NUMBERS.items():
        table = {
            "first": [{"bytes": png(number), "path": None} for number in numbers],
            "second": [{"bytes": png(number + 100), "path": None} for number in numbers],
            "kind": ["xy"[number % 2] for number in numbers],
        }
        (folder / split).mkdir(parents=True)
        pq.write_table(pa.table(table), folder / split / "0.parquet")
    with pytest.raises(
        UserError, match=r"one label column; it has 'first' .*, 'kind' \(string\): name"
    ):
        load(folder)
    first, second = (
        load(folder, DatasetLayout(image=image, label="kind")) for image in ("first", "second")
    )
    assert content(first, "test") == alternating(NUMBERS["test"], ["x", "y"])
    assert set(content(second, "test")) == {number + 100 for number in NUMBERS["test"]}
    # The same files and labels: the cache must not take the pictures of one for the other's.
    assert first.sources["test"].fingerprint != second.sources["test"].fingerprint
    with pytest.raises(UserError, match="it has 'first'"):
        load(folder, DatasetLayout(image="third", label="kind"))


# Content of a split


def test_a_file_replaced_at_the_same_time_of_change_is_read_anew(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "task")
    file = folder / "test-00000-of-00001.parquet"
    before = file.stat()
    assert content(load(folder), "test") == alternating(NUMBERS["test"], ["even", "odd"])
    write_parquet(file, [30, 31, 32, 33], [1, 1, 0, 0], names=["even", "odd"])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content(load(folder), "test") == {30: "odd", 31: "odd", 32: "even", 33: "even"}


def without_validation(folder: Path, numbers: Sequence[int]) -> Path:
    write_data(folder)
    (folder / "validation-00000-of-00001.parquet").unlink()
    labels = [number % 2 for number in numbers]
    write_parquet(folder / "train-00000-of-00001.parquet", numbers, labels, names=["even", "odd"])
    return folder


def test_the_cut_is_the_one_of_datasets(tmp_path: Path) -> None:
    numbers = list(range(30, 70))
    task = load(without_validation(tmp_path / "task", numbers))
    parts = Dataset.from_dict({"number": numbers}).train_test_split(test_size=4, seed=0)
    assert list(content(task, "train")) == parts["train"]["number"]
    assert list(content(task, "validation")) == parts["test"]["number"]
    labels = task.sources["train"].labels().tolist()
    assert labels == [number % 2 for number in parts["train"]["number"]]


def test_equal_pictures_stay_on_one_side_of_the_cut(tmp_path: Path) -> None:
    """Also those whose files differ: the two that were drawn for validation are there twice."""
    numbers = list(range(30, 70))
    drawn = Dataset.from_dict({"n": numbers}).train_test_split(test_size=4, seed=0)["test"]["n"]
    rest = [number for number in numbers if number not in drawn]
    numbers[numbers.index(rest[0])] = drawn[0]
    folder = without_validation(tmp_path / "one" / "task", numbers)
    file = folder / "train-00000-of-00001.parquet"
    table = pq.read_table(file).to_pydict()
    again = io.BytesIO()
    Image.new("RGB", (2, 2), shade(drawn[1])).save(again, "bmp")
    table["image"][numbers.index(rest[1])]["bytes"] = again.getvalue()
    pq.write_table(pa.table(table).replace_schema_metadata(pq.read_schema(file).metadata), file)

    task = load(folder)
    assert set(content(task, "validation")) == set(drawn[2:])
    assert len(task.sources["train"]) == 38
    assert {*drawn[:2]} < set(content(task, "train"))
    suite = folder_suite(
        write_pictures(tmp_path / "one" / "other").parent, None, [], cache=tmp_path / "cache"
    )
    images = SuiteImages(suite, Preprocess(2, (0.5,) * 3, (0.5,) * 3), Cache(tmp_path / "cache"))
    check_disjoint(
        {
            it.name: {split: images.digests(it, split, kept=False) for split in it.sources}
            for it in suite.seen
        }
    )


@pytest.mark.parametrize("numbers", [[30], [30, 30, 30]])
def test_too_few_pictures_for_a_cut_are_one_line(tmp_path: Path, numbers: list[int]) -> None:
    folder = without_validation(tmp_path / "task", numbers)
    with pytest.raises(UserError, match=rf"{len(numbers)} training picture\(s\) that cannot be"):
        load(folder)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_one_line(tmp_path: Path, split: str) -> None:
    folder = write_data(tmp_path / "task")
    write_parquet(folder / f"{split}-00000-of-00001.parquet", [], pa.array([], pa.int64()))
    with pytest.raises(UserError, match=f"task: the {split} split is empty"):
        load(folder)


@pytest.mark.parametrize("picture", [None, {"bytes": None, "path": None}, {"bytes": b""}])
def test_a_missing_picture_is_one_line(tmp_path: Path, picture: object) -> None:
    folder = write_data(tmp_path / "task")
    write_parquet(folder / "test-00000-of-00001.parquet", [21, picture], [1, 0])
    with pytest.raises(UserError, match=r"test-00000-of-00001.parquet, row 1 holds no picture"):
        content(load(folder), "test")


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task")
    (folder / "test" / "b" / "021").write_text("no picture")
    with pytest.raises(UserError, match="test/b/021 is no picture"):
        content(load(folder), "test")


def test_missing_validation_split_is_carved_from_train(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "suite"
    shutil.copytree(suite_root, root)
    (root / "parity" / "validation-00000-of-00001.parquet").unlink()
    suite = folder_suite(root, None, [], cache=tmp_path / "cache")
    sources = suite.seen[0].sources
    assert (len(sources["train"]), len(sources["validation"])) == (44, 4)
    assert sources["train"].fingerprint != sources["validation"].fingerprint
    images = SuiteImages(suite, SMALL, Cache(tmp_path / "cache"))
    check_disjoint(
        {"parity": {split: images.digests(suite.seen[0], split, kept=False) for split in sources}}
    )


def test_a_test_split_without_labels_is_refused(suite_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "suite"
    shutil.copytree(suite_root, root)
    file = root / "size" / "test-00000-of-00001.parquet"
    hidden = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "arrow"))
    hidden.map(lambda row: {**row, "label": -1}).to_parquet(str(file))
    with pytest.raises(UserError, match=r"size: 48 test picture\(s\) have no label"):
        folder_suite(root, None, [], cache=tmp_path / "cache")
