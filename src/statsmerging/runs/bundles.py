"""A bundle: the results of many runs in one ZIP, with a list of its files and their hashes.

A received one is data. No name in it becomes a place outside of a temporary folder, and every file
is compared with the list, and then with the manifest of its run.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from statsmerging.errors import first_line, printable, shown
from statsmerging.runs.bundled import TABLES
from statsmerging.runs.directory import CONFIG, MANIFEST, RESULTS
from statsmerging.runs.finished import CURVE_FILE
from statsmerging.store.files import new_path
from statsmerging.store.hashing import BLOCK, file_sha256
from statsmerging.store.received import (
    LARGEST_TEXT,
    ReceivedError,
    check_record,
    is_plain_name,
    received_json,
)

#: What the name of a bundle ends in.
SUFFIX = ".zip"

#: The list of the files of a bundle, and its tables as text.
CONTENTS, TABLES_TEXT = "bundle.json", "report.md"

#: Version of the format.
FORMAT = 1

#: Most files of a bundle, and most bytes of one of them and of all.
MOST_FILES, LARGEST_FILE, LARGEST_BUNDLE = 100_000, 1 << 28, 1 << 31

#: Letters of the name of the one who made a bundle.
LONGEST_BY = 200

#: Bytes of a part of a name; file systems allow no more.
LONGEST_PART = 255

#: A file of a run: everything that a report reads.
_RUN_FILE = re.compile(
    rf"(?P<run>.+)/(?P<file>{'|'.join(map(re.escape, (CONFIG, MANIFEST, RESULTS, *TABLES)))}"
    rf"|{CURVE_FILE.pattern})"
)

#: What ``zipfile`` raises for a file that is damaged, or of a kind that it does not know.
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Bundle:
    """Whose bundle it is, by its own account.

    Attributes:
        name: of the file, as seen from the folder of all runs.
        by: the name that was given; ``None``: none was.
        version: of the package that made it.
    """

    name: str
    by: str | None
    version: str

    @property
    def about(self) -> str:
        """``theirs.zip, by NAME, statsmerging 0.1.0``."""
        by = [f"by {self.by}"] if self.by else []
        return printable(", ".join([self.name, *by, f"statsmerging {self.version}"]))


@dataclass(frozen=True)
class OpenedBundle:
    """A verified bundle, as long as it is open.

    Attributes:
        bundle: whose it is.
        runs: name of each run → its directory, in the order of the bundle.
    """

    bundle: Bundle
    runs: Mapping[str, Path]


def write_bundle(
    path: Path, files: Mapping[str, Path], by: str | None, code: Mapping[str, Any]
) -> None:
    """Write a bundle; the same files give the same bytes, and nothing else is replaced.

    Args:
        path: the bundle.
        files: name in the bundle → file: ``TABLES_TEXT``, and ``RUN/NAME`` of each file that
            ``write_bundled`` wrote for a run.
        by: name of the one who makes it.
        code: version of the package that makes it, of ``code_version``.

    Raises:
        ReceivedError: it would be more than is read.
        UserError: the path holds something else.
    """
    listed = {
        name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
        for name, file in files.items()
    }
    contents = {"format": FORMAT, "by": by, **code, "files": listed}
    _check(_contents(contents, path), path)
    with new_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr(_entry(CONTENTS), json.dumps(contents, indent=2) + "\n")
        for name, file in files.items():
            archive.writestr(_entry(name), file.read_bytes())


@contextmanager
def opened_bundle(path: Path, name: str) -> Iterator[OpenedBundle]:
    """Verify a bundle, and unpack it into a temporary folder that is removed at the end.

    Args:
        path: the file; it may come from anybody.
        name: what the bundle is called.

    Raises:
        ReceivedError: it is damaged, too large, no bundle, or has files that a bundle has not; also
            what the block raises for its runs, with their places in the bundle.
    """
    with TemporaryDirectory(prefix="statsmerging-bundle-") as temporary:
        folder, runs = Path(temporary), dict[str, Path]()
        try:
            contents = _unpack(path, folder, runs)
            yield OpenedBundle(Bundle(name, contents.by, contents.statsmerging), runs)
        except ReceivedError as error:
            text = str(error)
            for run, place in runs.items():
                text = text.replace(str(place), f"{printable(str(path))}/{run}")
            text = text.replace(temporary, printable(str(path)))
            raise ReceivedError(text) from error


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _File(_Record):
    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class _Contents(_Record):
    format: int
    by: Annotated[str, Field(max_length=LONGEST_BY)] | None = None
    statsmerging: Annotated[str, Field(max_length=50)]
    files: dict[str, _File]


def _contents(value: Any, path: Path) -> _Contents:
    """The list as a checked object; a bundle of another format has other entries."""
    kind = value.get("format") if isinstance(value, dict) else None
    if kind != FORMAT:
        raise _refused(path, f"format {shown(str(kind))} is not read here, only format {FORMAT}")
    return check_record(_Contents, value, path / CONTENTS)


def _check(contents: _Contents, path: Path) -> dict[str, tuple[str, str]]:
    """Name of each file of a run → the run, and its name there.

    Raises:
        ReceivedError: a name that is not expected, no run, or too much.
    """
    _check_sizes({name: file.bytes for name, file in contents.files.items()}, path)
    places = {}
    for name in contents.files.keys() - {TABLES_TEXT}:
        found = _RUN_FILE.fullmatch(name)
        if found is None or not all(map(_is_plain_part, name.split("/"))):
            raise _refused(path, f"{shown(name)} is no file of a bundle")
        places[name] = found["run"], found["file"]
    if not places:
        raise _refused(path, "it holds no run")
    return places


def _check_sizes(sizes: Mapping[str, int], path: Path) -> None:
    """Refuse what would fill memory or disk, by the told sizes, before anything is read."""
    if len(sizes) > MOST_FILES:
        raise _refused(path, f"{len(sizes)} files are more than {MOST_FILES}")
    largest = max(sizes, key=lambda name: sizes[name], default="")
    if sizes.get(largest, 0) > LARGEST_FILE:
        raise _refused(path, f"{shown(largest)} has more than {LARGEST_FILE} bytes")
    if sum(sizes.values()) > LARGEST_BUNDLE:
        raise _refused(path, f"its files have more than {LARGEST_BUNDLE} bytes together")


def _unpack(path: Path, folder: Path, runs: dict[str, Path]) -> _Contents:
    """Unpack the files of each run into a folder with a number, which is entered in ``runs``."""
    with _opened(path) as archive:
        entries = _entries(archive, path)
        if CONTENTS not in entries:
            raise _refused(path, f"it is no bundle: it has no {CONTENTS}")
        if entries[CONTENTS].file_size > LARGEST_TEXT:
            raise _refused(path, f"{CONTENTS} is too large")
        _write(archive, entries.pop(CONTENTS), folder / CONTENTS, path)
        contents = _contents(received_json(folder, CONTENTS), path)
        differing = entries.keys() ^ contents.files.keys()
        if differing:
            raise _refused(path, f"{shown(min(differing))} is not in both, list and bundle")
        places = _check(contents, path)
        for name, listed in contents.files.items():
            target = folder / TABLES_TEXT
            if name in places:
                run, file = places[name]
                target = runs.setdefault(run, folder / f"{len(runs):06}") / file
            target.parent.mkdir(parents=True, exist_ok=True)
            found = _write(archive, entries[name], target, path)
            if found != (listed.bytes, listed.sha256):
                raise _refused(path, f"{shown(name)} is not what was packed: its sha256 is another")
    return contents


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    with archive:
        yield archive


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Name → entry, once what can be told without reading any is as expected."""
    listed = archive.infolist()
    entries = {entry.filename: entry for entry in listed}
    if len(entries) < len(listed):
        ((name, _),) = Counter(entry.filename for entry in listed).most_common(1)
        raise _refused(path, f"{shown(name)} is there twice")
    for name, entry in entries.items():
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if name.endswith("/") or kind not in (0, stat.S_IFREG):
            raise _refused(path, f"{shown(name)} is no regular file")
        if entry.flag_bits & 1:
            raise _refused(path, f"{shown(name)} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(path, f"{shown(name)} is packed in a way that is not read")
    # The list itself is no part of what it lists.
    sizes = {name: entry.file_size for name, entry in entries.items() if name != CONTENTS}
    _check_sizes(sizes, path)
    return entries


def _write(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, path: Path
) -> tuple[int, str]:
    """Unpack one file, no more bytes than its entry tells; returns their number and sha256."""
    count, digest = 0, hashlib.sha256()
    with target.open("wb") as written:
        for block in _blocks(archive, entry, path):
            count += len(block)
            if count > entry.file_size:
                raise _refused(path, f"{shown(entry.filename)} is larger than it tells")
            digest.update(block)
            written.write(block)
    return count, digest.hexdigest()


def _blocks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    try:
        with archive.open(entry) as stream:
            while block := stream.read(BLOCK):
                yield block
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry without traces of its making: no time, and the rights of any file."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, whose rights follow
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _is_plain_part(part: str) -> bool:
    return is_plain_name(part) and len(part.encode()) <= LONGEST_PART


def _refused(path: Path, reason: str) -> ReceivedError:
    return ReceivedError(f"{printable(str(path))}: {reason}")


def _unreadable(path: Path, error: BaseException) -> ReceivedError:
    reason = getattr(error, "strerror", None) or first_line(error)
    return _refused(path, f"it is no whole ZIP: {printable(reason)}")
