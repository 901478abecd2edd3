"""Small data folders that tests write, and what must be read from them.

Every picture is of one colour, ``shade(number)``, so that its pixels identify it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from statsmerging.choices import Split
from statsmerging.data.folder_suite import load_folder
from statsmerging.data.settings import DatasetLayout
from statsmerging.data.suites import ImageSource, Task

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


def decoded(source: ImageSource) -> Iterator[Image.Image]:
    return (decode() for decode in source.undecoded())


def content(task: Task, split: Split) -> dict[int, str]:
    """Number of each picture, read from its pixels → the name of its class."""
    source = task.sources[split]
    numbers = []
    for image in decoded(source):
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
