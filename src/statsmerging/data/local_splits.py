"""A data set in a local folder: parquet files, or folders of pictures.

The folder is received: its files are found by their names, never by what a card in it says, and
each is a regular file inside it. Nothing is fetched.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from statsmerging.data.pictures import FORMATS
from statsmerging.data.settings import DatasetAddress
from statsmerging.data.sources import (
    SPLIT_NAMES,
    Label,
    PublishedSplit,
    choose_columns,
    choose_splits,
    few,
    picture_bytes,
    told_label,
    wrong_columns,
)
from statsmerging.data.suites import Split
from statsmerging.errors import UserError, first_line, printable
from statsmerging.store.hashing import file_sha256
from statsmerging.store.received import ReceivedError, received_file, received_text

log = logging.getLogger(__name__)


#: Bytes of the largest picture file.
LARGEST_PICTURE_FILE = 1 << 29


#: Pictures of a parquet file that are in memory at a time.
_ROWS = 64


#: Tables beside pictures: the columns ``file_name`` and ``label``, one row for each picture.
_TABLES = ("metadata.csv", "metadata.jsonl")


_SUFFIXES = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}


@dataclass(frozen=True)
class _ParquetSplit:
    """A split in parquet files, with the pictures inside them.

    Attributes:
        files: paths within the folder.
        image: name of the image column.
    """

    folder: Path
    files: tuple[str, ...]
    image: str
    labels: tuple[Label | None, ...]
    names: tuple[str, ...] | None

    def contents(self) -> list[str]:
        return [self.image, *_hashes(self.folder, self.files)]

    def encoded(self) -> Iterator[tuple[str, bytes]]:
        for file in self.files:
            with _parquet(self.folder, file) as parquet:
                batches = parquet.iter_batches(_ROWS, columns=[self.image])
                values = (value for batch in batches for value in batch.column(0).to_pylist())
                for row, value in enumerate(values):
                    where = f"{_told(self.folder, file)}, row {row}"
                    yield where, picture_bytes(value, where)


@dataclass(frozen=True)
class _PictureFiles:
    """A split of which each picture is a file.

    Attributes:
        files: paths within the folder.
    """

    folder: Path
    files: tuple[str, ...]
    labels: tuple[Label | None, ...]
    names: tuple[str, ...] | None = None

    def contents(self) -> list[str]:
        return _hashes(self.folder, self.files)

    def encoded(self) -> Iterator[tuple[str, bytes]]:
        for file in self.files:
            path, where = received_file(self.folder, file), _told(self.folder, file)
            if path.stat().st_size > LARGEST_PICTURE_FILE:
                raise UserError(f"{where} is too large to be a picture")
            yield where, path.read_bytes()


def find_splits(folder: Path, address: DatasetAddress) -> dict[Split, tuple[str, ...]]:
    """Our split → its files, as paths within the folder, in the order of their names.

    They are parquet files where there are some: their names, or the folders they are in, tell the
    split. Otherwise the folders directly below ``folder`` are the splits.

    Raises:
        UserError: no train or no test split, files of several data sets, or a linked folder.
    """
    files = sorted(_visible_files(folder))
    parquet = [file for file in files if file.casefold().endswith(".parquet")]
    splits: dict[str, list[str]] = {}
    if parquet:
        splits = _parquet_files(folder, parquet, address)
    else:
        for file in files:
            name, _, inside = file.partition("/")
            if inside:
                splits.setdefault(name, []).append(file)
    chosen = choose_splits(_told(folder), splits, address.splits)
    return {split: tuple(splits[name]) for split, name in chosen.items()}


def published_splits(folder: Path, address: DatasetAddress) -> dict[Split, PublishedSplit]:
    """The splits of the data set in a folder, with their labels; no picture is read yet.

    Raises:
        UserError: names the file or the folder that is not what it should be.
    """
    found = find_splits(folder, address)
    if found["train"][0].casefold().endswith(".parquet"):
        return _parquet_splits(folder, found, address)
    return {split: _picture_split(folder, split, files, address) for split, files in found.items()}


def _parquet_files(
    folder: Path, files: Sequence[str], address: DatasetAddress
) -> dict[str, list[str]]:
    """Published split → its files; those of the data set's one configuration."""
    usual = [name for names in SPLIT_NAMES.values() for name in names]
    known = {name.casefold() for name in [*usual, *address.splits.values()]}
    subsets: dict[str, dict[str, list[str]]] = {}
    for file in files:
        split, subset = _split_and_subset(folder, file, known)
        if split is not None:
            subsets.setdefault(subset, {}).setdefault(split, []).append(file)
    if not subsets:
        raise UserError(f"{_told(folder)}: no file's name tells a split: {few(files)}")
    if address.subset is not None:
        wanted = [subset for subset in subsets if address.subset in subset.split("/")]
        subsets = {subset: subsets[subset] for subset in wanted} or subsets
    if len(subsets) > 1:
        raise UserError(
            f"{_told(folder)} holds several data sets, {few(sorted(subsets))}: keep one of them"
        )
    return next(iter(subsets.values()))


def _split_and_subset(folder: Path, file: str, known: set[str]) -> tuple[str | None, str]:
    """The split that a parquet file's path tells, and the folder above all splits."""
    path = PurePosixPath(file)
    for depth, part in enumerate(path.parts[:-1]):
        if part.casefold() in known:
            return part, "/".join(path.parts[:depth])
    # Between words stand what `datasets` takes for it: train-00000-of-00001, mnist_train, test2.
    edge = r"[^-._ \d]"
    found = [
        name
        for name in known
        if re.search(rf"(?<!{edge}){re.escape(name)}(?!{edge})", path.stem.casefold())
    ]
    longest = [name for name in found if not any(name != it and name in it for it in found)]
    if len(longest) > 1:
        raise UserError(
            f"{_told(folder, file)}: which split is it, {' or '.join(sorted(longest))}?"
        )
    return (longest[0] if longest else None), str(path.parent)


def _parquet_splits(
    folder: Path, found: Mapping[Split, tuple[str, ...]], address: DatasetAddress
) -> dict[Split, PublishedSplit]:
    first = found["train"][0]
    with _parquet(folder, first) as parquet:
        features = _features(parquet, _told(folder, first))
    image, label = choose_columns(_told(folder, first), features, address)
    if label is None:
        raise wrong_columns(_told(folder, first), features)
    return {
        split: _parquet_split(folder, split, files, image, label) for split, files in found.items()
    }


def _parquet_split(
    folder: Path, split: Split, files: tuple[str, ...], image: str, label: str
) -> _ParquetSplit:
    labels: list[Label | None] = []
    names: tuple[str, ...] | None = None
    for file in files:
        where = _told(folder, file)
        with _parquet(folder, file) as parquet:
            features = _features(parquet, where)
            if image not in features or (label not in features and split != "validation"):
                raise wrong_columns(where, features)
            if label not in features:
                labels += [None] * parquet.metadata.num_rows
                continue
            told = parquet.read(columns=[label]).column(0).to_pylist()
        own = features[label].get("names")
        labels += [told_label(value, own, where) for value in told]
        names = names or own
    return _ParquetSplit(folder, files, image, tuple(labels), names)


def _features(parquet: pq.ParquetFile, where: str) -> dict[str, dict[str, Any]]:
    """Column → its description: what ``datasets`` wrote into the file, or what its type says."""
    schema = parquet.schema_arrow
    written = (schema.metadata or {}).get(b"huggingface")
    if written is None:
        return {column.name: _feature(column.type) for column in schema}
    try:
        told = json.loads(written)["info"]["features"]
        return {column.name: _told_feature(told[column.name], column.type) for column in schema}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: what it says of its columns cannot be read") from error


def _feature(kind: pa.DataType) -> dict[str, Any]:
    holds_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    if holds_bytes or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        return {"_type": "Image"}
    return {"_type": "Value", "dtype": str(kind)}


def _told_feature(told: Mapping[str, Any], kind: pa.DataType) -> dict[str, Any]:
    if told["_type"] == "Image":
        return {"_type": "Image"}
    if told["_type"] == "ClassLabel":
        names = tuple(told["names"])
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(names)
        return {"_type": "ClassLabel", "names": names}
    return {"_type": "Value", "dtype": str(kind)}


@contextmanager
def _parquet(folder: Path, file: str) -> Iterator[pq.ParquetFile]:
    path = received_file(folder, file)
    try:
        with pq.ParquetFile(path) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        cause = printable(first_line(error.__cause__ or error))
        raise UserError(f"{_told(folder, file)} is not a whole parquet file: {cause}") from error


def _picture_split(
    folder: Path, split: Split, files: tuple[str, ...], address: DatasetAddress
) -> _PictureFiles:
    name = files[0].split("/")[0]
    places = [place for table in _TABLES for place in (f"{name}/{table}", table)]
    tables = [place for place in places if (folder / place).exists()]
    labels: Mapping[str, Label | None]
    if tables:
        labels = _listed(folder, split, tables[0], address)
    else:
        labels = {file: _class_folder(folder, split, file) for file in files if _is_picture(file)}
    for file in labels:
        received_file(folder, file)
    # A table above the splits lists those of the others too.
    labels = {file: label for file, label in labels.items() if file.startswith(f"{name}/")}
    others = [file for file in files if file not in labels and file not in tables]
    if others and not labels:
        raise UserError(f"{_told(folder, name)} holds {few(others)}, and no picture")
    if others:
        log.warning(
            "%s: %d file(s) are passed over, %s: no pictures, or not in %s",
            _told(folder, name),
            len(others),
            few(others),
            tables[0] if tables else "class folders",
        )
    return _PictureFiles(folder, tuple(labels), tuple(labels.values()))


def _is_picture(file: str) -> bool:
    suffix = PurePosixPath(file).suffix.casefold()
    return not suffix or suffix in _SUFFIXES


def _class_folder(folder: Path, split: Split, file: str) -> str | None:
    parts = file.split("/")
    if len(parts) == 2 and split == "validation":
        return None
    if len(parts) != 3:
        raise UserError(
            f"{_told(folder, file)}: expected SPLIT/CLASS/PICTURE, or a metadata.csv with the "
            "columns file_name and label beside the pictures"
        )
    return parts[1]


def _listed(
    folder: Path, split: Split, table: str, address: DatasetAddress
) -> dict[str, Label | None]:
    """Picture file → its label, from a table beside the pictures."""
    where = _told(folder, table)
    rows = _rows(folder, table)
    file_name, label = address.image or "file_name", address.label or "label"
    columns = {key: {"dtype": type(value).__name__} for key, value in (rows or [{}])[0].items()}
    if file_name not in columns or (label not in columns and split != "validation"):
        raise wrong_columns(where, columns)
    place = PurePosixPath(table).parent
    files = [(place / str(row.get(file_name))).as_posix() for row in rows]
    told = [row.get(label) for row in rows]
    if table.endswith(".csv"):
        told = _from_text(told)
    return {file: told_label(it, None, where) for file, it in zip(files, told, strict=True)}


def _rows(folder: Path, table: str) -> list[dict[str, Any]]:
    text = received_text(folder, table)
    try:
        if table.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, csv.Error, RecursionError) as error:
        raise ReceivedError(f"{_told(folder, table)} cannot be read as a table") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ReceivedError(f"{_told(folder, table)}: each line must be {{…}}")
    return rows


def _from_text(labels: Sequence[str | None]) -> list[str | float | None]:
    """What the cells of a column mean: numbers where all are whole ones, nothing where empty."""
    are_numbers = all(re.fullmatch(r"-?\d+(\.0*)?", label) for label in labels if label)
    return [(float(label) if are_numbers else label) if label else None for label in labels]


def _visible_files(folder: Path) -> Iterator[str]:
    """Paths of all files in a folder and below it; hidden ones are left out.

    Raises:
        ReceivedError: a folder that is a link: what it holds would silently be missing.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        inside = Path(place).relative_to(folder)
        for name in folders:
            if (folder / inside / name).is_symlink():
                where = _told(folder, (inside / name).as_posix())
                raise ReceivedError(f"{where} is a link; links are not followed")
        yield from ((inside / name).as_posix() for name in files if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _hashes(folder: Path, files: Sequence[str]) -> list[str]:
    return [file_sha256(received_file(folder, file)) for file in files]


def _told(folder: Path, file: str = "") -> str:
    """A path as it may stand in a message."""
    return printable(str(folder / file))
