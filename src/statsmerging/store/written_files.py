"""Files that a job writes into a folder of the user; files of the user there are never touched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from statsmerging.errors import UserError, printable
from statsmerging.store.files import atomic_path, write_json
from statsmerging.store.hashing import file_sha256
from statsmerging.store.received import ReceivedError, received_file, received_json


class WrittenFiles:
    """The files that were written here, with their hashes; no other file is overwritten or removed.

    Args:
        folder: receives the files; it may come from anybody.
        record: name of the file in it that keeps the names and hashes for the next call.
        names: all files that are going to be written.

    Raises:
        UserError: the folder holds a file of such a name that we did not write, or that was
            changed since, or a link; nothing was changed.
    """

    def __init__(self, folder: Path, record: str, names: Iterable[str]) -> None:
        self.folder = folder
        self._record = record
        self._names = frozenset(names)
        self._hashes = _hashes(folder, record)
        for name in sorted(self._names):
            self._refuse_foreign(name)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A temporary file that becomes the file of this name if the block succeeds."""
        with atomic_path(self.folder / name) as partial:
            yield partial
            # Recorded before it has its name: the process may be killed between the two.
            self._hashes.setdefault(name, []).append(file_sha256(partial))
            write_json(self.folder / self._record, self._hashes)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        with self.writing(name) as partial:
            partial.write_text(text, encoding="utf-8")

    def remove_earlier(self) -> None:
        """Remove files of earlier calls that were not written this time."""
        for name in self._hashes.keys() - self._names:
            if self._is_own(name):
                (self.folder / name).unlink()
        newest = {
            name: self._hashes[name][-1:] for name in sorted(self._names & self._hashes.keys())
        }
        write_json(self.folder / self._record, newest)

    def _refuse_foreign(self, name: str) -> None:
        path = self.folder / name
        for parent in (path.parents[depth] for depth in range(len(Path(name).parts) - 1)):
            if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
                raise UserError(
                    f"{printable(str(parent))} is no folder of this report's; choose another "
                    "hydra.run.dir"
                )
        if os.path.lexists(path) and not self._is_own(name):
            raise UserError(
                f"{printable(str(path))} was not written by an earlier report, or was changed "
                "since; nothing was overwritten: move it, or choose another hydra.run.dir"
            )

    def _is_own(self, name: str) -> bool:
        try:
            path = received_file(self.folder, name)
        except ReceivedError:
            return False
        return file_sha256(path) in self._hashes.get(name, [])


def _hashes(folder: Path, record: str) -> dict[str, list[str]]:
    """Name → hashes of all contents that the file had; the newest is the last."""
    if not os.path.lexists(folder / record):
        return {}
    value = received_json(folder, record)
    if not isinstance(value, dict) or not all(isinstance(item, list) for item in value.values()):
        raise ReceivedError(f"{printable(str(folder / record))} is no record of written files")
    return value
