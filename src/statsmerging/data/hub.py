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
from typing import Any

from statsmerging.data.folder_suite import load_folder, task_folder
from statsmerging.data.settings import CatalogueEntry, DatasetAddress
from statsmerging.data.sources import (
    Label,
    PublishedSplit,
    choose_columns,
    choose_splits,
    picture_bytes,
    published_task,
    told_label,
    wrong_columns,
)
from statsmerging.data.suites import Split, Suite, Task, choose_tasks
from statsmerging.errors import MissingFilesError, UserError, first_line, gather_missing
from statsmerging.store.files import read_json, write_json
from statsmerging.store.hashing import file_checksum, file_sha256
from statsmerging.store.locks import waiting_lock

#: Seconds to wait for the hub's first answer.
PATIENCE = 5


@cache
def hub_is_open() -> bool:
    """Whether the hub is allowed (``HF_HUB_OFFLINE``) and answers.

    Where it does not answer, the libraries are told so: they would try each file for minutes.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # whatever the HTTP library of the day raises
        _close()
        return False
    return True


def _close() -> None:
    import datasets.config
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True


@contextmanager
def closed_hub() -> Iterator[None]:
    """Ask the hub for nothing within the block: ``HF_HUB_OFFLINE=1``; its cache is read."""
    import datasets.config
    import huggingface_hub.constants

    constants, variable = (huggingface_hub.constants, datasets.config), "HF_HUB_OFFLINE"
    before = [module.HF_HUB_OFFLINE for module in constants]
    environment = os.environ.get(variable)
    os.environ[variable] = "1"  # for what is not imported yet, and for further processes
    _close()
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
        size: how large the file is, for the message where it is missing.

    Raises:
        MissingFilesError: not in the mirror, or neither cached nor to be had.
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

    A split whose number of images is not the published one is warned about.

    Args:
        name: of the suite, as it stands in tables.
        root: a mirror with one folder a task, ``ROOT/TASK/``; ``None`` asks the hub.
        tasks: names of the seen tasks; ``None`` takes all that are not unseen.
        unseen: names of tasks that are only scored.
        cache: folder for the Arrow files that ``datasets`` makes.

    Raises:
        MissingFilesError: data sets that are neither in the mirror nor to be had; all of them.
        UserError: an unknown task, or a data set that cannot be read.
    """
    seen_names, unseen_names = choose_tasks(catalogue, tasks, unseen, where="the catalogue")
    loaded: dict[str, Task] = {}

    def load(task: str) -> None:
        loaded[task] = _load(task, catalogue[task], root, cache)
        for difference in count_differences(loaded[task], catalogue[task]):
            log.warning("%s", difference)

    gather_missing(*(lambda task=task: load(task) for task in [*seen_names, *unseen_names]))
    return Suite(
        name,
        tuple(loaded[task] for task in seen_names),
        tuple(loaded[task] for task in unseen_names),
    )


def count_differences(task: Task, entry: CatalogueEntry) -> list[str]:
    """One line for each split whose number of images is not the published one.

    A validation split that was cut from the training images counts as training images.
    """
    found = {split: len(source) for split, source in task.sources.items()}
    if "validation" not in entry.counts:
        found["train"] += found.pop("validation")
    return [
        f"{task.name}: {found[split]} {split} images, published are {expected}"
        for split, expected in entry.counts.items()
        if found[split] != expected
    ]


def _load(task: str, entry: CatalogueEntry, root: Path | None, cache: Path) -> Task:
    what = f"data set {entry.id} (about {entry.gigabytes:g} GB)"
    classes = tuple(entry.classes) if entry.classes else None
    address = DatasetAddress(entry.subset, entry.image, entry.label, classes, entry.splits)
    if root is not None:
        folder = task_folder(root, task)
        if not folder.is_dir():
            raise MissingFilesError([f"{root / task} ({what})"])
        return load_folder(folder, cache, address, name=task)
    if Path(entry.id).exists():  # `datasets` would take it for the data set
        raise UserError(f"{entry.id} is a folder here, and a data set of the hub: use suite.root")
    is_open = hub_is_open()  # asked first: where it is closed, `datasets` then looks in its cache
    try:
        return load_hub_task(task, entry.id, address, cache=cache)
    except UserError as error:
        if is_open:
            raise
        raise MissingFilesError([what]) from error
