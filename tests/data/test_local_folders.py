"""What people's data folders look like: each is read with the right pixels and labels, or refused.

Every picture here is of one colour, ``shade(number)``, so that it tells which one it is.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from PIL import Image

from statsmerging.data.folder_suite import folder_suite, load_folder
from statsmerging.data.images import SuiteImages, check_disjoint
from statsmerging.data.pictures import Preprocess
from statsmerging.data.settings import DatasetLayout
from statsmerging.data.suites import Split, Task
from statsmerging.errors import UserError
from statsmerging.store.cache import Cache

#: Numbers of the pictures in each split, where a test does not choose others.
NUMBERS: dict[str, list[int]] = {
    "train": list(range(6)),
    "validation": list(range(10, 14)),
    "test": list(range(20, 24)),
}


def shade(number: int) -> tuple[int, int, int]:
    return number % 251, number // 251, 7


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), shade(number)).save(file, "png")
    return file.getvalue()


def write_parquet(
    file: Path,
    pictures: Sequence[object],
    labels: Sequence[object] | None,
    *,
    names: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[object]] | None = None,
    described: bool = True,
) -> None:
    """A parquet file as ``datasets`` writes it, or as pandas does where it is not described.

    Args:
        pictures: numbers, or whatever else shall stand in the image column.
        names: of the classes, where the labels are numbers of them.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    held = [
        {"bytes": png(picture), "path": None} if isinstance(picture, int) else picture
        for picture in pictures
    ]
    table = {"image": pa.array(held, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        table["label"] = pa.array(labels)
        features["label"] = {"_type": "Value", "dtype": "any"}
        if names is not None:
            features["label"] = {"_type": "ClassLabel", "names": names}
    for name, values in (columns or {}).items():
        table[name] = pa.array(values)
        features[name] = {"_type": "Value", "dtype": "any"}
    description = json.dumps({"info": {"features": features}})
    metadata = {"huggingface": description} if described else None
    pq.write_table(pa.table(table).replace_schema_metadata(metadata), file)


def write_data(folder: Path, **settings: Any) -> Path:
    """Parquet files of three splits; classes alternate."""
    for split, numbers in NUMBERS.items():
        labels = [number % 2 for number in numbers]
        write_parquet(
            folder / f"{split}-00000-of-00001.parquet",
            numbers,
            labels,
            **{"names": ["even", "odd"], **settings},
        )
    return folder


def write_pictures(
    folder: Path, splits: Mapping[str, Sequence[int]] = NUMBERS, classes: Sequence[str] = ("a", "b")
) -> Path:
    """``SPLIT/CLASS/NUMBER.png``; classes alternate."""
    for split, numbers in splits.items():
        for number in numbers:
            file = folder / split / classes[number % len(classes)] / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(number))
    return folder


def load(folder: Path, address: DatasetLayout | None = None) -> Task:
    return load_folder(folder, folder.parent / "cache", address or DatasetLayout())


def content(task: Task, split: Split) -> dict[int, str]:
    """Number of each picture, read from its pixels → the name of its class."""
    source = task.sources[split]
    numbers = []
    for image in source.images():
        red, green, _ = image.getpixel((0, 0))  # type: ignore[misc]
        numbers.append(red + 251 * green)
    assert len(numbers) == len(source)
    labels = source.labels()
    assert labels.dtype == np.int64
    return {
        number: task.classes[label] if label >= 0 else "unknown"
        for number, label in zip(numbers, labels.tolist(), strict=True)
    }


def alternating(numbers: Sequence[int], classes: Sequence[str]) -> dict[int, str]:
    return {number: classes[number % len(classes)] for number in numbers}


def assert_all_read(task: Task, classes: Sequence[str]) -> None:
    assert task.classes == tuple(sorted(classes))
    for split, numbers in NUMBERS.items():
        assert content(task, split) == alternating(numbers, classes)  # type: ignore[arg-type]


# Whose word counts


def test_a_card_chooses_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = write_data(tmp_path / "task")
    other = write_data(tmp_path / "other", names=["no", "yes"])
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: {place}\n"
        for split, place in (
            ("train", "http://127.0.0.1:9/t.parquet"),
            ("test", other / "*.parquet"),
        )
    )
    (folder / "README.md").write_text(f"{card}---\n")
    (folder / "task.py").write_text("raise SystemExit('a loading script was run')")
    assert_all_read(load(folder), ["even", "odd"])


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/0.png", "/etc/hostname", "../beside.png"])
def test_pictures_elsewhere_are_not_read(tmp_path: Path, place: str) -> None:
    folder = write_data(tmp_path / "task")
    (tmp_path / "beside.png").write_bytes(png(1))
    held = [{"bytes": None, "path": place}, 21]
    write_parquet(folder / "test-00000-of-00001.parquet", held, [0, 1], names=["even", "odd"])
    with pytest.raises(UserError, match=r"row 0: .* lies outside the file and is not read"):
        content(load(folder), "test")


@pytest.mark.parametrize("place", ["../../other/train/a/000.png", "/etc/hostname", "pipe.png"])
def test_file_names_in_a_table_stay_inside_the_folder(tmp_path: Path, place: str) -> None:
    write_pictures(tmp_path / "other")
    folder = write_pictures(tmp_path / "task")
    os.mkfifo(folder / "test" / "pipe.png")
    (folder / "test" / "metadata.csv").write_text(f"file_name,label\n{place},a\nb/021.png,b\n")
    with pytest.raises(UserError, match=r"leads out of|no regular file"):
        load(folder)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task")
    shutil.move(folder / "test" / "a", tmp_path / "elsewhere")
    (folder / "test" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"test/a is a link; links are not followed"):
        load(folder)
    data = write_data(tmp_path / "data")
    file = data / "test-00000-of-00001.parquet"
    file.rename(tmp_path / "blob")
    file.symlink_to(tmp_path / "blob")
    with pytest.raises(UserError, match=r"test-00000-of-00001.parquet is a link"):
        load(data)


@pytest.mark.parametrize(
    "features",
    [
        "[" * 10_000,
        "[]",
        '{"info": {"features": 3}}',
        '{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel"}}}}',
        '{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel",'
        ' "names_file": "/etc/passwd"}}}}',
        '{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel",'
        ' "names": [1, {}]}}}}',
    ],
)
def test_an_odd_description_of_columns_is_one_line(tmp_path: Path, features: str) -> None:
    folder = write_data(tmp_path / "task")
    file = folder / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": features}), file)
    with pytest.raises(UserError, match="its description of the columns cannot be read"):
        load(folder)


# Which files


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "dev", "test"),
        ("train", "valid", "testing"),
        ("Train", "Validation", "Test"),
        ("training", "VAL", "eval"),
    ],
)
def test_names_of_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    splits = dict(zip(names, NUMBERS.values(), strict=True))
    assert_all_read(load(write_pictures(tmp_path / "pictures", splits)), ["a", "b"])
    for name, numbers in splits.items():
        labels = [number % 2 for number in numbers]
        write_parquet(tmp_path / "by_folder" / name / "0.parquet", numbers, labels)
        write_parquet(tmp_path / "by_name" / f"tools_{name}.parquet", numbers, labels)
    for folder in ("by_folder", "by_name"):
        assert_all_read(load(tmp_path / folder), ["0", "1"])


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "task")
    (folder / "test-00000-of-00001.parquet").unlink()
    for shard, numbers in (("00001", [22, 23]), ("00000", [20, 21])):
        write_parquet(folder / "data" / f"x-test-{shard}-of-00002.parquet", numbers, [0, 1])
    for split in ("train", "validation"):
        shutil.move(
            folder / f"{split}-00000-of-00001.parquet", folder / "data" / f"{split}.parquet"
        )
    assert list(content(load(folder), "test").items()) == [
        (20, "even"),
        (21, "odd"),
        (22, "even"),
        (23, "odd"),
    ]


def test_several_data_sets_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    write_data(tmp_path / "task" / "cropped", names=["low", "high"])
    write_data(tmp_path / "task" / "whole")
    with pytest.raises(UserError, match="several data sets, 'cropped', 'whole': keep one"):
        load(tmp_path / "task")
    assert_all_read(load(tmp_path / "task", DatasetLayout(subset="whole")), ["even", "odd"])


@pytest.mark.parametrize("classes", [("airport", "train_station"), ("test", "train"), ("val", "x")])
def test_classes_named_like_splits(tmp_path: Path, classes: tuple[str, str]) -> None:
    folder = write_pictures(tmp_path / "test_tube", classes=classes)
    assert_all_read(load(folder), classes)


def test_two_splits_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task", {"Test": [30, 31], **NUMBERS})
    with pytest.raises(UserError, match=r"has splits (Test and test|test and Test): keep one"):
        load(folder)


def test_capitals_and_missing_extensions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_pictures(tmp_path / "task")
    (folder / "test" / "a" / "020.png").rename(folder / "test" / "a" / "020.PNG")
    (folder / "test" / "b" / "021.png").rename(folder / "test" / "b" / "021")
    (folder / "test" / "a" / ".DS_Store").touch()
    (folder / "test" / "a" / "notes.txt").touch()
    assert_all_read(load(folder), ["a", "b"])
    assert "1 file(s) are passed over, 'test/a/notes.txt'" in caplog.text


def test_a_split_of_archives_is_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task")
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()
    (folder / "test" / "0.tar").touch()
    with pytest.raises(UserError, match=r"task/test holds 'test/0\.tar', and no picture"):
        load(folder)


@pytest.mark.parametrize("place", ["test/024.png", "test/a/more/024.png"])
def test_pictures_outside_class_folders_are_refused(tmp_path: Path, place: str) -> None:
    folder = write_pictures(tmp_path / "task")
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_bytes(png(24))
    with pytest.raises(UserError, match=rf"{place}: expected SPLIT/CLASS/PICTURE"):
        load(folder)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("place", ["splits", "root"])
def test_tables_beside_pictures(tmp_path: Path, kind: str, place: str) -> None:
    folder = tmp_path / "task"
    tables: dict[Path, list[dict[str, Any]]] = {}
    for split, numbers in NUMBERS.items():
        (folder / split).mkdir(parents=True)
        for number in numbers:
            (folder / split / f"{number}.png").write_bytes(png(number))
            beside = folder / split if place == "splits" else folder
            name = f"{number}.png" if place == "splits" else f"{split}/{number}.png"
            row = {"file_name": name, "text": "a, b", "label": 3 + 7 * (number % 2)}
            tables.setdefault(beside / f"metadata.{kind}", []).append(row)
    for table, rows in tables.items():
        lines = [",".join(rows[0])] + [f'{r["file_name"]},"{r["text"]}",{r["label"]}' for r in rows]
        if kind == "jsonl":
            lines = list(map(json.dumps, rows))
        table.write_text("\n".join(lines))
    task = load(folder)
    assert task.classes == ("3", "10")
    for split, numbers in NUMBERS.items():
        assert content(task, split) == alternating(numbers, ["3", "10"])  # type: ignore[arg-type]


def test_file_names_that_are_numbers_stay_text(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "task")
    shutil.rmtree(folder / "test")
    (folder / "test").mkdir()
    for number in NUMBERS["test"]:
        (folder / "test" / f"{number:04d}").write_bytes(png(number))
    rows = [f"{number:04d},{'ab'[number % 2]},more" for number in NUMBERS["test"]]
    (folder / "test" / "metadata.csv").write_text("\n".join(["\ufefffile_name,label", *rows]))
    assert_all_read(load(folder), ["a", "b"])


@pytest.mark.parametrize("text", ["", "file_name\n020.png\n", "name,label\na,b\n", "\x00"])
def test_tables_without_the_columns_are_refused(tmp_path: Path, text: str) -> None:
    folder = write_pictures(tmp_path / "task")
    (folder / "test" / "metadata.csv").write_text(text)
    with pytest.raises(UserError, match=r"metadata.csv (needs one image|cannot be read)"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "3", "[" * 10_000])
def test_broken_lines_of_a_table_are_refused(tmp_path: Path, text: str) -> None:
    folder = write_pictures(tmp_path / "task")
    (folder / "test" / "metadata.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"metadata.jsonl(: each line| cannot be read)"):
        load(folder)


# Which task


def test_tasks_are_read_from_their_own_folders(tmp_path: Path) -> None:
    """Names that are patterns, reserved or foreign, each beside a neighbour that it would match."""
    names = ["digits[1]", "digits1", "a b", "naïve Ziffern ٣", "*", "average", "v1.0", "train"]
    for seed, name in enumerate(names):
        splits = {split: [100 * seed + it for it in numbers] for split, numbers in NUMBERS.items()}
        write_pictures(tmp_path / "suite" / name, splits)
    suite = folder_suite(tmp_path / "suite", names, [], cache=tmp_path / "cache")
    for seed, task in enumerate(suite.seen):
        assert task.name == names[seed]
        assert set(content(task, "test")) == {100 * seed + it for it in NUMBERS["test"]}


def test_folders_that_are_passed_over_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "suite"
    for name in ("one", "two"):
        write_pictures(root / name)
    (root / "again").symlink_to(root / "two")
    write_pictures(root / "no_splits", {"cats": [1], "dogs": [2]})
    write_pictures(root / "no_test", {"train": [1, 2, 3]})
    write_pictures(tmp_path / "elsewhere")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    write_pictures(root / "line\nbreak")
    suite = folder_suite(root, None, [], cache=tmp_path / "cache")
    assert [task.name for task in suite.seen] == ["again", "one", "two"]
    reasons = {
        "no_splits needs a train and a test split; it has 'cats', 'dogs'",
        "no_test needs a train and a test split; it has 'train'",
        f"linked leads out of {root}; such links are not followed",
        r"line\nbreak: the name of a task must be printable",
    }
    told = [record.getMessage() for record in caplog.records]
    assert {f"passed over: {root}/{reason}" for reason in reasons} == set(told)

    caplog.clear()
    folder_suite(root, ["one", "two"], [], cache=tmp_path / "cache")
    assert not caplog.records
    with pytest.raises(UserError, match="no_test needs a train and a test split"):
        folder_suite(root, ["one", "no_test"], [], cache=tmp_path / "cache")
    with pytest.raises(UserError, match=r"holds no task.*cats needs a train"):
        folder_suite(root / "no_splits", None, [], cache=tmp_path / "cache")


# Which classes


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


# Whose content


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
        {it.name: {split: images.split(it, split) for split in it.sources} for it in suite.seen}
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
