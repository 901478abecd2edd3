"""The zip archive `torch.save` writes since torch 1.6: one pickle, and the bytes of each storage.

Layout: `NAME/data.pkl`, `NAME/data/KEY` for every storage, `NAME/byteorder`, all uncompressed
(https://pytorch.org/docs/stable/notes/serialization.html).
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from statsmerging.errors import UserError, printable, shown
from statsmerging.zoo.weights import check_weights_file

#: Largest pickle that is read, in bytes; a pickled module has 6 kB for a transformer block.
MAX_PROGRAM = 2 << 20

_ENCRYPTED = 1

#: What `zipfile` raises for broken files, depending on where they are broken.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, struct.error)


class TorchArchive:
    """An open archive whose entries together are no larger than the file.

    Args:
        path: the file.

    Raises:
        UserError: no file, no zip archive, a cut one, compressed or overlapping entries, no pickle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = printable(str(path))
        check_weights_file(path, archive=True)
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise UserError(
                f"{self.found} is no whole zip archive of torch.save ({_line(error)}); a file of "
                "torch < 1.6 has to be saved again"
            ) from error
        try:
            self._check_sizes()
            self.folder = self._folder()
            self._check_byte_order()
        except UserError:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def program(self) -> bytes:
        """The pickle."""
        return self._read("data.pkl", limit=MAX_PROGRAM)

    def storage(self, key: str, dtype: torch.dtype, elements: int) -> Tensor:
        """One storage as a vector.

        Raises:
            UserError: the entry has another size than declared; nothing is read then.
        """
        declared = elements * dtype.itemsize
        size = self._entry(f"data/{key}").file_size
        if declared != size:
            raise UserError(
                f"{self.found}: storage {shown(key)} has {size} bytes, not the {declared} it claims"
            )
        if elements == 0:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._read(f"data/{key}", limit=size)), dtype=dtype)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._zip.getinfo(f"{self.folder}/{name}")
        except KeyError:
            raise UserError(f"{self.found} has no entry {shown(name)}") from None

    def _read(self, name: str, *, limit: int) -> bytes:
        entry = self._entry(name)
        if entry.file_size > limit:
            raise UserError(f"{self.found}: {name} has {entry.file_size} bytes, over {limit}")
        try:
            return self._zip.read(entry)
        except _BROKEN as error:
            raise UserError(f"{self.found} is a broken zip archive: {_line(error)}") from error

    def _check_sizes(self) -> None:
        entries = self._zip.infolist()
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
                raise UserError(
                    f"{self.found}: entry {shown(entry.filename)} is compressed or encrypted; "
                    "torch.save writes plain entries"
                )
        if sum(entry.file_size for entry in entries) > self.path.stat().st_size:
            raise UserError(f"{self.found}: its entries claim more bytes than the file has")

    def _folder(self) -> str:
        programs = [
            entry.filename.split("/")[0]
            for entry in self._zip.infolist()
            if entry.filename.count("/") == 1 and entry.filename.endswith("/data.pkl")
        ]
        if len(programs) != 1:
            raise UserError(f"{self.found} is no archive of torch.save: no single data.pkl")
        return programs[0]

    def _check_byte_order(self) -> None:
        name = "byteorder"
        if f"{self.folder}/{name}" in self._zip.namelist() and (
            self._read(name, limit=16) != b"little"
        ):
            raise UserError(f"{self.found} was written on a big-endian machine")


def _line(error: BaseException) -> str:
    return shown(str(error) or type(error).__name__)
