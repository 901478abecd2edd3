"""A data set of the Hugging Face hub, read by ``datasets``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from statsmerging.data.published_data import (
    DatasetAddress,
    Label,
    PublishedSplit,
    choose_columns,
    choose_splits,
    picture_bytes,
    published_task,
    told_label,
    wrong_columns,
)
from statsmerging.data.suites import Split, Task
from statsmerging.records.errors import UserError, first_line
from statsmerging.records.files import read_json, write_json
from statsmerging.records.hashing import file_checksum, file_sha256
from statsmerging.records.locks import waiting_lock

log = logging.getLogger(__name__)

#: Beside a data set's Arrow files: what each file held when it was made.
CHECKSUMS = "checksums.json"

#: What `datasets` says of its Arrow files: columns, class names.
DESCRIPTION = "dataset_info.json"


@dataclass(frozen=True)
class _HubSplit:
    """A split in the Arrow files that ``datasets`` made.

    Attributes:
        id: of the data set.
        files: what it was made of; their addresses hold the hash of their commit.
        downloads: where files of the hub are kept.
    """

    id: str
    dataset: Any = field(repr=False)
    image: str
    labels: tuple[Label | None, ...]
    names: tuple[str, ...] | None
    files: tuple[str, ...]
    downloads: tuple[Path, ...]

    def contents(self) -> list[str]:
        hashes = (file if "://" in file else file_sha256(Path(file)) for file in self.files)
        return [self.image, *hashes]

    def encoded(self) -> Iterator[tuple[str, bytes]]:
        import datasets

        undecoded = datasets.Image(decode=False)
        column = self.dataset.select_columns(self.image).cast_column(self.image, undecoded)
        for row, values in enumerate(column):
            where = f"{self.id}, row {row}"
            yield (
                where,
                self._downloaded(values[self.image]) or picture_bytes(values[self.image], where),
            )

    def _downloaded(self, value: Any) -> bytes | None:
        """The bytes of a picture that is a file of its own, where it came from the hub."""
        if value is None or value["bytes"] is not None or not value["path"]:
            return None
        path = Path(value["path"]).resolve()
        is_ours = any(path.is_relative_to(place.resolve()) for place in self.downloads)
        return path.read_bytes() if is_ours and path.is_file() else None


def load_hub_task(name: str, path: str, address: DatasetAddress, *, cache: Path) -> Task:
    """The task of a data set, with its images not yet decoded.

    Args:
        name: of the task, as it stands in tables.
        path: its id on the hub, ``OWNER/NAME``.
        cache: folder for the Arrow files that ``datasets`` makes.

    Raises:
        UserError: the data set cannot be read or reached, lacks a split, or has no unmistakable
            image and label column.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    datasets.disable_progress_bars()
    _remove_misdescribed(cache)
    try:
        builder = datasets.load_dataset_builder(path, address.subset, cache_dir=str(cache))
        _prepare(builder)
        found = builder.as_dataset()
    except Exception as error:
        # `datasets` wraps whatever its readers raise; the first line names the cause.
        cause = first_line(error.__cause__ or error)
        raise UserError(f"{path} cannot be read as a data set: {cause}") from error

    features = next(iter(found.values())).features.to_dict()
    image, label = choose_columns(path, features, address)
    if label is None or features[image].get("_type") != "Image":
        raise wrong_columns(path, features)

    def published(split: str) -> _HubSplit:
        names = features[label].get("names")
        values = found[split].select_columns(label).with_format("arrow")[:].column(0).to_pylist()
        return _HubSplit(
            path,
            found[split],
            image,
            tuple(told_label(value, names, path) for value in values),
            tuple(names) if names else None,
            tuple(str(file) for file in builder.config.data_files[split]),
            (cache, Path(HF_HUB_CACHE)),
        )

    chosen = choose_splits(path, found, address.splits)
    splits: dict[Split, PublishedSplit] = {ours: published(it) for ours, it in chosen.items()}
    return published_task(name, path, splits, address.classes, cache=cache)


def _remove_misdescribed(cache: Path) -> None:
    """Remove data sets whose description is not what was written: a builder believes it."""
    for checksums in list(cache.rglob(CHECKSUMS)):
        folder = checksums.parent
        if not _is_sound(folder, [folder / DESCRIPTION]):
            log.warning("%s is not what was written there: it is made anew", folder)
            shutil.rmtree(folder, ignore_errors=True)  # another process may be doing the same


def _prepare(builder: Any) -> None:
    """Make the data set's Arrow files, or make them anew if they are not what was made."""
    folder = Path(builder.cache_dir)
    with waiting_lock(folder.with_name(f".{folder.name}.checked.lock"), f"making {folder}"):
        if folder.is_dir() and not _is_sound(folder, _arrow_files(folder)):
            written = (folder / CHECKSUMS).exists()
            reason = "is not what was written there" if written else "has no checksums"
            log.warning("%s %s: it is made anew", folder, reason)
            shutil.rmtree(folder)
        builder.download_and_prepare()
        if not (folder / CHECKSUMS).exists():
            files = [*_arrow_files(folder), folder / DESCRIPTION]
            write_json(folder / CHECKSUMS, {file.name: file_checksum(file) for file in files})


def _arrow_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.arrow")) if not file.name.startswith("cache-")]


def _is_sound(folder: Path, files: Sequence[Path]) -> bool:
    """Whether these are the files of their kind that were written, and hold what they held."""
    try:
        written = read_json(folder / CHECKSUMS)
        kind = {
            name: sum_ for name, sum_ in written.items() if Path(name).suffix == files[0].suffix
        }
        return kind == {file.name: file_checksum(file) for file in files}
    except (OSError, ValueError, LookupError, AttributeError, RecursionError):
        return False
