"""Published data sets: from a mirror, counted, and named in one line where they are missing."""

from __future__ import annotations

from pathlib import Path

import datasets
import huggingface_hub
import pytest

from statsmerging.data import hub
from statsmerging.data.catalogue import CatalogueEntry
from statsmerging.data.hub_suite import count_differences, hub_suite
from statsmerging.data.hugging_face import DatasetAddress, load_task
from statsmerging.records.errors import MissingFilesError, UserError
from tests.conftest import write_suite

CATALOGUE = {
    "parity": CatalogueEntry(id="somebody/parity", counts={"train": 96, "test": 48}, gigabytes=0.5),
    "size": CatalogueEntry(id="somebody/size", counts={"test": 50}, gigabytes=2),
    "absent": CatalogueEntry(id="somebody/absent", gigabytes=12),
}


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
    root = write_suite(tmp_path / "suite", images_per_split=12)
    data = datasets.Dataset.from_parquet(
        str(root / "size" / "train-00000-of-00001.parquet"), cache_dir=str(tmp_path / "arrow")
    )
    data = data.cast_column("label", datasets.Value("int64")).add_column("fold", [0] * 12)
    folder = tmp_path / "odd"
    folder.mkdir()
    data.to_parquet(str(folder / "train-0.parquet"))
    data.to_parquet(str(folder / "validation-0.parquet"))
    with pytest.raises(UserError, match="needs one image and one class-label column"):
        load_task("odd", DatasetAddress(str(folder)), cache=tmp_path)
    address = DatasetAddress(
        str(folder), label="label", classes=("low", "high"), splits={"test": "validation"}
    )
    task = load_task("odd", address, cache=tmp_path)
    assert task.classes == ("low", "high")
    assert len(task.sources["test"]) == 12
    # The split that serves as test does not serve as validation as well.
    assert len(task.sources["train"]) + len(task.sources["validation"]) == 12
