"""Published data sets, from the Hugging Face hub or from a local mirror."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from statsmerging.choices import Split
from statsmerging.data.folder_suite import load_folder, task_folder
from statsmerging.data.settings import CatalogueEntry, DatasetLayout
from statsmerging.data.sources import (
    IMAGE,
    Column,
    Label,
    PublishedSplit,
    choose_columns,
    choose_splits,
    picture_bytes,
    published_task,
    read_label,
    wrong_columns,
)
from statsmerging.data.suites import Suite, Task, choose_tasks
from statsmerging.errors import MissingFilesError, UserError, first_line, gather_missing
from statsmerging.store.files import read_json, write_json
from statsmerging.store.hashing import file_checksum, file_sha256
from statsmerging.store.locks import waiting_lock

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

#: Seconds to wait for the hub's first answer.
PATIENCE = 5

#: Checksums of a data set's Arrow files, stored beside them when they are written.
CHECKSUMS = "checksums.json"

#: The description that `datasets` writes beside its Arrow files: columns, class names.
DESCRIPTION = "dataset_info.json"


@cache
def hub_is_open() -> bool:
    """Whether the hub is allowed (``HF_HUB_OFFLINE``) and answers.

    If it does not answer, the libraries are set offline: they would try each file for minutes.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # whatever the installed HTTP library raises
        _set_offline()
        return False
    return True


def _set_offline() -> None:
    import datasets.config
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True


@contextmanager
def closed_hub() -> Iterator[None]:
    """Work offline within the block (``HF_HUB_OFFLINE=1``): only the hub's cache is read."""
    import datasets.config
    import huggingface_hub.constants

    constants, variable = (huggingface_hub.constants, datasets.config), "HF_HUB_OFFLINE"
    before = [module.HF_HUB_OFFLINE for module in constants]
    environment = os.environ.get(variable)
    os.environ[variable] = "1"  # for modules that are imported later, and for other processes
    _set_offline()
    hub_is_open.cache_clear()
    try:
        yield
    finally:
        for module, value in zip(constants, before, strict=True):
            module.HF_HUB_OFFLINE = value
        if environment is None:
            del os.environ[variable]
        else:
            os.environ[variable] = environment
        hub_is_open.cache_clear()


def hub_file(repository: str, name: str, *, root: Path | None, size: str) -> Path:
    """A file of a repository: from a mirror, from the hub's cache, or downloaded.

    Args:
        repository: ``OWNER/NAME``.
        root: a mirror, ``ROOT/OWNER/NAME/FILE``; ``None`` asks the hub.
        size: size of the file, for the message if it is missing.

    Raises:
        MissingFilesError: not in the mirror, or neither cached nor available.
    """
    if root is not None:
        path = root / repository / name
        if not path.is_file():
            raise MissingFilesError([f"{path} ({size})"])
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    hub_is_open()
    try:
        return Path(hf_hub_download(repository, name))
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise MissingFilesError([f"{repository}/{name} ({size})"]) from error


def hub_suite(
    name: str,
    catalogue: Mapping[str, CatalogueEntry],
    root: Path | None,
    tasks: list[str] | None,
    unseen: list[str],
    *,
    cache: Path,
) -> Suite:
    """The named tasks of the catalogue.

    There is a warning for each split whose number of images is not the published one.

    Args:
        name: of the suite, as it is written in tables.
        root: a mirror with one folder per task, ``ROOT/TASK/``; ``None`` asks the hub.
        tasks: names of the seen tasks; ``None`` takes all that are not unseen.
        unseen: names of tasks that are only scored.
        cache: folder for the Arrow files that ``datasets`` writes.

    Raises:
        MissingFilesError: data sets that are neither in the mirror nor available; lists all.
        UserError: an unknown task, or a data set that cannot be read.
    """
    seen_names, unseen_names = choose_tasks(catalogue, tasks, unseen, where="the catalogue")
    loaded: dict[str, Task] = {}

    def load(task: str) -> None:
        entry = catalogue[task]
        missing = f"data set {entry.id} (about {entry.gigabytes:g} GB)"
        if root is not None:
            folder = task_folder(root, task)
            if not folder.is_dir():
                raise MissingFilesError([f"{root / task} ({missing})"])
            loaded[task] = load_folder(folder, cache, entry, name=task)
        elif Path(entry.id).exists():  # `datasets` would read it instead of the data set
            raise UserError(
                f"{entry.id} is a folder here, and a data set of the hub: use suite.root"
            )
        else:
            is_open = hub_is_open()  # asked first: if it is closed, `datasets` reads its cache
            try:
                loaded[task] = load_hub_task(task, entry.id, entry, cache=cache)
            except UserError as error:
                if is_open:
                    raise
                raise MissingFilesError([missing]) from error
        for difference in count_differences(loaded[task], entry):
            log.warning("%s", difference)

    gather_missing(*(lambda task=task: load(task) for task in [*seen_names, *unseen_names]))
    seen_tasks, unseen_tasks = (
        tuple(loaded[task] for task in names) for names in (seen_names, unseen_names)
    )
    return Suite(name, seen_tasks, unseen_tasks)


def count_differences(task: Task, entry: CatalogueEntry) -> list[str]:
    """One line for each split whose number of images is not the published one.

    A validation split that was made of training images counts as training images.
    """
    found = {split: len(source) for split, source in task.sources.items()}
    if "validation" not in entry.counts:
        found["train"] += found.pop("validation")
    return [
        f"{task.name}: {found[split]} {split} images, published are {expected}"
        for split, expected in entry.counts.items()
        if found[split] != expected
    ]


def load_hub_task(name: str, path: str, layout: DatasetLayout, *, cache: Path) -> Task:
    """The task of a data set, with its labels; no picture is decoded yet.

    Args:
        name: of the task, as it is written in tables.
        path: the data set's id on the hub, ``OWNER/NAME``.
        cache: folder for the Arrow files that ``datasets`` writes.

    Raises:
        UserError: the data set cannot be read or reached, lacks a split, or its image or label
            column is ambiguous.
    """
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    datasets.disable_progress_bars()
    # A builder believes its description, so a damaged one is removed before there is a builder.
    for checksums in list(cache.rglob(CHECKSUMS)):
        folder = checksums.parent
        if not _is_sound(folder, [folder / DESCRIPTION]):
            log.warning("%s is not what was written there: it is made anew", folder)
            shutil.rmtree(folder, ignore_errors=True)  # another process may be doing the same
    try:
        builder = datasets.load_dataset_builder(path, layout.subset, cache_dir=str(cache))
        _prepare(builder)
        found = builder.as_dataset()
    except Exception as error:
        # `datasets` wraps whatever its readers raise; the first line names the cause.
        cause = first_line(error.__cause__ or error)
        raise UserError(f"{path} cannot be read as a data set: {cause}") from error

    columns = {}
    for column, feature in next(iter(found.values())).features.items():
        is_value = isinstance(feature, datasets.Value)
        names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        columns[column] = Column(feature.dtype if is_value else type(feature).__name__, names)
    image, label = choose_columns(path, columns, layout)
    if label is None or columns[image].type != IMAGE:
        raise wrong_columns(path, columns)
    class_names = columns[label].names
    splits: dict[Split, PublishedSplit] = {}
    for split, published in choose_splits(path, found, layout).items():
        arrow = found[published].select_columns(label).with_format("arrow")
        splits[split] = _HubSplit(
            path,
            found[published],
            image,
            tuple(read_label(it, class_names, path) for it in arrow[:].column(0).to_pylist()),
            class_names,
            tuple(str(file) for file in builder.config.data_files[published]),
            (cache, Path(HF_HUB_CACHE)),
        )
    return published_task(name, path, splits, layout.classes, cache=cache)


@dataclass(frozen=True)
class _HubSplit:
    """A split in the Arrow files that ``datasets`` wrote.

    Attributes:
        id: of the data set.
        files: the files that it was made of; addresses on the hub hold the hash of their commit.
        downloads: folders of files that came from the hub.
    """

    id: str
    dataset: datasets.Dataset = field(repr=False)
    image: str
    labels: tuple[Label | None, ...]
    names: tuple[str, ...] | None
    files: tuple[str, ...]
    downloads: tuple[Path, ...]

    def content_hashes(self) -> list[str]:
        hashes = (file if "://" in file else file_sha256(Path(file)) for file in self.files)
        return [self.image, *hashes]

    def encoded_pictures(self) -> Iterator[tuple[str, bytes]]:
        import datasets

        undecoded = datasets.Image(decode=False)
        column = self.dataset.select_columns(self.image).cast_column(self.image, undecoded)
        for row, values in enumerate(column):
            value = values[self.image]
            # A picture may be a file of its own. It is read if it came from the hub.
            if value is not None and value["bytes"] is None and value["path"]:
                file = Path(value["path"]).resolve()
                is_ours = any(file.is_relative_to(place.resolve()) for place in self.downloads)
                if is_ours and file.is_file():
                    value = file.read_bytes()
            where = f"{self.id}, row {row}"
            yield where, picture_bytes(value, where)


def _prepare(builder: datasets.DatasetBuilder) -> None:
    """Write the data set's Arrow files, or rewrite them if they are not what was written."""
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
    """Whether these are all files of their type that were written, with unchanged content."""
    try:
        written = read_json(folder / CHECKSUMS)
        same_type = {
            name: checksum
            for name, checksum in written.items()
            if Path(name).suffix == files[0].suffix
        }
        return same_type == {file.name: file_checksum(file) for file in files}
    except (OSError, ValueError, LookupError, AttributeError, RecursionError):
        return False
