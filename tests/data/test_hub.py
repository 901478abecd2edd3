"""Published data sets: from a mirror, counted, and named in one line where they are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from statsmerging.data import hub
from statsmerging.data.hub import count_differences, hub_suite, load_hub_task
from statsmerging.data.settings import CatalogueEntry, DatasetLayout, PlainName
from statsmerging.data.suites import ImageSource
from statsmerging.errors import MissingFilesError, UserError
from tests.conftest import write_suite
from tests.data.task_folders import decoded

CATALOGUE = {
    "parity": CatalogueEntry(id="somebody/parity", counts={"train": 96, "test": 48}, gigabytes=0.5),
    "size": CatalogueEntry(id="somebody/size", counts={"test": 50}, gigabytes=2),
    "absent": CatalogueEntry(id="somebody/absent", gigabytes=12),
}

ODD = DatasetLayout(label="kind", classes=["low", "high"], splits={"test": "validation"})


def test_a_mirror_gives_the_tasks_of_the_catalogue(suite_root: Path, tmp_path: Path) -> None:
    suite = hub_suite("mine", CATALOGUE, suite_root, ["parity", "size"], [], cache=tmp_path)
    assert [task.name for task in suite.seen] == ["parity", "size"]
    assert len(suite.seen[0].sources["train"]) == 48


def test_counts_that_are_not_the_published_ones_are_told(suite_root: Path, tmp_path: Path) -> None:
    suite = hub_suite("mine", CATALOGUE, suite_root, ["parity", "size"], [], cache=tmp_path)
    parity, size = suite.seen
    # 48 training and 48 validation images are the published 96 where no validation is published.
    assert count_differences(parity, CATALOGUE["parity"]) == []
    assert count_differences(size, CATALOGUE["size"]) == ["size: 48 test images, published are 50"]


def test_all_missing_data_sets_are_named_at_once(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingFilesError, match=r"somebody/absent \(about 12 GB\)"):
        hub_suite("mine", CATALOGUE, suite_root, ["parity", "absent"], [], cache=tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hub.hub_is_open.cache_clear()
    with pytest.raises(MissingFilesError) as missing:
        hub_suite("mine", CATALOGUE, None, ["parity", "size"], ["absent"], cache=tmp_path)
    assert [item.split()[2] for item in missing.value.files] == [
        "somebody/parity",
        "somebody/size",
        "somebody/absent",
    ]


def test_a_hub_file_comes_from_the_mirror_or_is_missed(tmp_path: Path) -> None:
    file = tmp_path / "owner" / "name" / "model.safetensors"
    with pytest.raises(MissingFilesError, match=r"owner/name/model\.safetensors \(1 GB\)"):
        hub.hub_file("owner/name", "model.safetensors", root=tmp_path, size="1 GB")
    file.parent.mkdir(parents=True)
    file.touch()
    assert hub.hub_file("owner/name", file.name, root=tmp_path, size="1 GB") == file


def test_columns_and_splits_by_name(tmp_path: Path) -> None:
    """Two label columns, bare numbers as labels, and a test split under another name."""
    folder = write_odd(tmp_path / "odd")
    with pytest.raises(UserError, match="needs one image and one label column"):
        load_hub_task("odd", str(folder), DatasetLayout(), cache=tmp_path)
    task = load_hub_task("odd", str(folder), ODD, cache=tmp_path)
    assert task.classes == ("low", "high")
    assert len(task.sources["test"]) == 12
    # The split that serves as test does not serve as validation as well.
    assert len(task.sources["train"]) + len(task.sources["validation"]) == 12


def test_a_mirror_is_read_with_the_columns_classes_and_splits_of_the_catalogue(
    suite_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "mirror"
    shutil.copytree(suite_root / "parity", root / "parity")
    hub = load_hub_task("odd", str(write_odd(root / "odd")), ODD, cache=tmp_path / "arrow")
    entry = CatalogueEntry(
        id="somebody/odd",
        label="kind",
        classes=["low", "high"],
        splits={"test": "validation"},
        gigabytes=1,
    )
    catalogue = {**CATALOGUE, "odd": entry}
    suite = hub_suite("mine", catalogue, root, ["parity", "odd"], [], cache=tmp_path)
    mirrored = suite.seen[1]
    assert mirrored.name == "odd"
    assert mirrored.classes == hub.classes == ("low", "high")
    for split, source in hub.sources.items():
        assert mirrored.sources[split].labels().tolist() == source.labels().tolist()
        assert pixels(mirrored.sources[split]) == pixels(source)


def test_names_of_the_catalogue_do_not_lead_out_of_the_mirror(
    suite_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "mirror").mkdir()
    catalogue = {f"../{suite_root.name}/parity": CATALOGUE["parity"], "size": CATALOGUE["size"]}
    with pytest.raises(UserError, match="leads out of"):
        hub_suite("mine", catalogue, suite_root / "size", None, [], cache=tmp_path)


def test_a_folder_is_not_taken_for_a_data_set_of_the_hub(
    suite_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(suite_root.parent)
    entry = CatalogueEntry(id=f"{suite_root.name}/parity", gigabytes=1)
    with pytest.raises(UserError, match=r"is a folder here.*use suite\.root"):
        hub_suite("mine", {"a": entry, "b": entry}, None, None, [], cache=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other names", "checksums"])
def test_a_damaged_description_is_made_anew(tmp_path: Path, damage: str) -> None:
    root, cache = write_suite(tmp_path / "suite", images_per_split=6), tmp_path / "arrow"

    def loaded() -> tuple[tuple[str, ...], list[bytes]]:
        task = load_hub_task("parity", str(root / "parity"), DatasetLayout(), cache=cache)
        return task.classes, pixels(task.sources["test"])

    sound = loaded()
    (file,) = cache.rglob("checksums.json" if damage == "checksums" else "dataset_info.json")
    content = file.read_bytes()
    file.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "flipped": bytes([content[0] ^ 128]) + content[1:],
            "other names": content.replace(b'"even"', b'"EVEN"'),
            "checksums": b"\xff" + content[1:],
        }[damage]
    )
    assert loaded() == sound


def test_damaged_arrow_files_are_made_anew(tmp_path: Path) -> None:
    root, cache = write_suite(tmp_path / "suite", images_per_split=6), tmp_path / "arrow"

    def content() -> list[bytes]:
        task = load_hub_task("parity", str(root / "parity"), DatasetLayout(), cache=cache)
        return pixels(task.sources["test"])

    sound = content()
    for file in cache.rglob("*.arrow"):
        damaged = bytearray(file.read_bytes())
        damaged[len(damaged) // 2] ^= 4
        file.write_bytes(damaged)
    assert content() == sound


def write_odd(folder: Path) -> Path:
    """Bare numbers as labels, in two columns of which none is called so, and no test split."""
    source = write_suite(folder.parent / f"{folder.name} source", images_per_split=12)
    folder.mkdir()
    for split in ("train", "validation"):
        file = str(source / "size" / f"{split}-00000-of-00001.parquet")
        data = datasets.Dataset.from_parquet(file, cache_dir=str(folder.parent / "made of"))
        data = data.cast_column("label", datasets.Value("int64")).rename_column("label", "kind")
        data.add_column("fold", [0] * 12).to_parquet(str(folder / f"{split}-0.parquet"))
    shutil.rmtree(source)
    return folder


def pixels(source: ImageSource) -> list[bytes]:
    return [image.tobytes() for image in decoded(source)]


@pytest.mark.parametrize(
    ("task", "place", "message"),
    [
        ("../../up", "somebody/data", "no plain name"),
        ("up", "/etc/data", "is no address on the hub"),
        ("up", "https://host/data", "is no address on the hub"),
        ("up", "csv", "is no address on the hub"),
    ],
)
def test_a_catalogue_names_tasks_and_data_sets_plainly(task: str, place: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(dict[PlainName, CatalogueEntry]).validate_python(
            {task: {"id": place, "gigabytes": 1}}
        )


def test_picture_files_are_read_from_what_was_downloaded_alone(tmp_path: Path) -> None:
    kept, elsewhere = tmp_path / "cache" / "downloads" / "task", tmp_path / "elsewhere" / "task"
    for folder in (kept, elsewhere):
        for place in ("train/a", "train/b", "validation/b", "test/a"):
            (folder / place).mkdir(parents=True)
            Image.new("RGB", (2, 2), (len(place), 1, 2)).save(folder / place / "0.png")
    task = load_hub_task("task", str(kept), DatasetLayout(), cache=tmp_path / "cache")
    assert pixels(task.sources["test"]) == [bytes([6, 1, 2] * 4)]
    assert task.sources["test"].labels().tolist() == [0]
    task = load_hub_task("task", str(elsewhere), DatasetLayout(), cache=tmp_path / "cache")
    with pytest.raises(UserError, match=r"row 0: .* lies outside the file and is not read"):
        pixels(task.sources["test"])
