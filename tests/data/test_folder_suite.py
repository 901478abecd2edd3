"""Folders of parquet files or pictures: each is read correctly, or refused with a message."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from statsmerging.data.folder_suite import folder_suite
from statsmerging.data.settings import DatasetLayout
from statsmerging.errors import UserError
from tests.data.task_folders import (
    NUMBERS,
    alternating,
    assert_all_read,
    content,
    load,
    png,
    write_data,
    write_parquet,
    write_pictures,
)

# What is trusted


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


# Files of a split


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


def test_one_of_several_data_sets_in_a_folder_is_chosen(tmp_path: Path) -> None:
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


# Tasks of a suite


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
