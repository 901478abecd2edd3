"""Splits in local files: parquet files with the pictures inside, or one file for each picture.

``folder_suite.py`` decides which files belong to which split. Labels are read at once, pictures
when they are needed. The files are received: each must be a regular file inside its folder.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from statsmerging.choices import Split
from statsmerging.data.pictures import FORMATS
from statsmerging.data.settings import DatasetLayout
from statsmerging.data.sources import (
    CLASS_LABEL,
    IMAGE,
    Column,
    Label,
    PublishedSplit,
    choose_columns,
    first_few,
    picture_bytes,
    read_label,
    wrong_columns,
)
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

#: File extensions of the formats that are read.
_SUFFIXES = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}


def shown_path(folder: Path, file: str = "") -> str:
    """The path of a received file or folder, in a form that is safe in a message."""
    return printable(str(folder / file))


# Parquet files


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

    def content_hashes(self) -> list[str]:
        files = [file_sha256(received_file(self.folder, file)) for file in self.files]
        return [self.image, *files]

    def encoded_pictures(self) -> Iterator[tuple[str, bytes]]:
        for file in self.files:
            with _open_parquet(self.folder, file) as parquet:
                batches = parquet.iter_batches(_ROWS, columns=[self.image])
                values = (value for batch in batches for value in batch.column(0).to_pylist())
                for row, value in enumerate(values):
                    where = f"{shown_path(self.folder, file)}, row {row}"
                    yield where, picture_bytes(value, where)


def parquet_splits(
    folder: Path, files_of: Mapping[Split, Sequence[str]], layout: DatasetLayout
) -> dict[Split, PublishedSplit]:
    """The splits in parquet files, with their labels; no picture is read yet.

    The columns are chosen from the first training file, and must be in all other files too; only
    validation files may lack the label column.

    Raises:
        UserError: names the file that is not a parquet file or lacks a column.
    """
    first = files_of["train"][0]
    where = shown_path(folder, first)
    with _open_parquet(folder, first) as parquet:
        columns = _columns(parquet, where)
    image, label = choose_columns(where, columns, layout)
    if label is None:
        raise wrong_columns(where, columns)
    splits: dict[Split, PublishedSplit] = {}
    for split, files in files_of.items():
        labels: list[Label | None] = []
        names: tuple[str, ...] | None = None
        for file in files:
            where = shown_path(folder, file)
            with _open_parquet(folder, file) as parquet:
                columns = _columns(parquet, where)
                if image not in columns or (label not in columns and split != "validation"):
                    raise wrong_columns(where, columns)
                if label not in columns:
                    labels += [None] * parquet.metadata.num_rows
                    continue
                values = parquet.read(columns=[label]).column(0).to_pylist()
            file_names = columns[label].names
            labels += [read_label(value, file_names, where) for value in values]
            names = names or file_names
        splits[split] = _ParquetSplit(folder, tuple(files), image, tuple(labels), names)
    return splits


def _columns(parquet: pq.ParquetFile, where: str) -> dict[str, Column]:
    """The columns as ``datasets`` described them in the file, or else by the type of the values."""
    schema = parquet.schema_arrow
    columns = {}
    for field in schema:
        is_bytes = pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
        is_struct = pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        columns[field.name] = Column(IMAGE if is_bytes or is_struct else str(field.type))
    description = (schema.metadata or {}).get(b"huggingface")
    if description is None:
        return columns
    try:
        described = json.loads(description)["info"]["features"]
        for field in schema:
            feature = described[field.name]
            names = None
            if feature["_type"] == CLASS_LABEL:
                names = tuple(feature["names"])
                if not names or not all(isinstance(name, str) for name in names):
                    raise TypeError(names)
            is_known = feature["_type"] in (IMAGE, CLASS_LABEL)
            columns[field.name] = Column(feature["_type"] if is_known else str(field.type), names)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{where}: its description of the columns cannot be read") from error
    return columns


@contextmanager
def _open_parquet(folder: Path, file: str) -> Iterator[pq.ParquetFile]:
    path = received_file(folder, file)
    try:
        with pq.ParquetFile(path) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        cause = printable(first_line(error.__cause__ or error))
        raise UserError(
            f"{shown_path(folder, file)} is not a whole parquet file: {cause}"
        ) from error


# Folders of pictures


@dataclass(frozen=True)
class _PictureSplit:
    """A split with one file for each picture.

    Attributes:
        files: paths within the folder.
    """

    folder: Path
    files: tuple[str, ...]
    labels: tuple[Label | None, ...]
    names: None = None

    def content_hashes(self) -> list[str]:
        return [file_sha256(received_file(self.folder, file)) for file in self.files]

    def encoded_pictures(self) -> Iterator[tuple[str, bytes]]:
        for file in self.files:
            path, where = received_file(self.folder, file), shown_path(self.folder, file)
            if path.stat().st_size > LARGEST_PICTURE_FILE:
                raise UserError(f"{where} is too large to be a picture")
            yield where, path.read_bytes()


def picture_split(
    folder: Path, split: Split, files: Sequence[str], layout: DatasetLayout
) -> PublishedSplit:
    """A split of picture files, with labels from a table beside them or from class folders.

    Files that are no pictures, or not in the table, are skipped with a warning.

    Raises:
        UserError: names the file or the folder that is not as expected.
    """
    name = files[0].split("/")[0]
    places = [place for table in _TABLES for place in (f"{name}/{table}", table)]
    tables = [place for place in places if (folder / place).exists()]
    labels: dict[str, Label | None] = {}
    if tables:
        labels = _labels_of_table(folder, split, tables[0], layout)
    else:
        for file in files:
            suffix = PurePosixPath(file).suffix.casefold()
            if not suffix or suffix in _SUFFIXES:
                labels[file] = _class_folder(folder, split, file)
    for file in labels:
        received_file(folder, file)
    # A table above the splits also lists the pictures of the other splits.
    labels = {file: label for file, label in labels.items() if file.startswith(f"{name}/")}
    skipped = [file for file in files if file not in labels and file not in tables]
    if skipped and not labels:
        raise UserError(f"{shown_path(folder, name)} holds {first_few(skipped)}, and no picture")
    if skipped:
        log.warning(
            "%s: %d file(s) are passed over, %s: no pictures, or not in %s",
            shown_path(folder, name),
            len(skipped),
            first_few(skipped),
            tables[0] if tables else "class folders",
        )
    return _PictureSplit(folder, tuple(labels), tuple(labels.values()))


def _class_folder(folder: Path, split: Split, file: str) -> str | None:
    """The class of ``SPLIT/CLASS/PICTURE``; ``None`` for ``SPLIT/PICTURE`` of validation."""
    parts = file.split("/")
    if len(parts) == 2 and split == "validation":
        return None
    if len(parts) != 3:
        raise UserError(
            f"{shown_path(folder, file)}: expected SPLIT/CLASS/PICTURE, or a metadata.csv with the "
            "columns file_name and label beside the pictures"
        )
    return parts[1]


def _labels_of_table(
    folder: Path, split: Split, table: str, layout: DatasetLayout
) -> dict[str, Label | None]:
    """Picture file → its label, from a table beside the pictures."""
    where = shown_path(folder, table)
    rows = _table_rows(folder, table)
    file_name, label = layout.image or "file_name", layout.label or "label"
    columns = {key: Column(type(value).__name__) for key, value in (rows or [{}])[0].items()}
    if file_name not in columns or (label not in columns and split != "validation"):
        raise wrong_columns(where, columns)
    beside = PurePosixPath(table).parent
    files = [(beside / str(row.get(file_name))).as_posix() for row in rows]
    values = [row.get(label) for row in rows]
    if table.endswith(".csv"):
        # Cells are text: numbers if all of the column are whole ones, nothing if empty.
        cells = [cell if isinstance(cell, str) else "" for cell in values]
        are_numbers = all(re.fullmatch(r"-?\d+(\.0*)?", cell) for cell in cells if cell)
        values = [(float(cell) if are_numbers else cell) if cell else None for cell in cells]
    return {file: read_label(value, None, where) for file, value in zip(files, values, strict=True)}


def _table_rows(folder: Path, table: str) -> list[dict[str, object]]:
    text = received_text(folder, table)
    try:
        if table.endswith(".csv"):
            return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, csv.Error, RecursionError) as error:
        raise ReceivedError(f"{shown_path(folder, table)} cannot be read as a table") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ReceivedError(f"{shown_path(folder, table)}: each line must be {{…}}")
    return rows
