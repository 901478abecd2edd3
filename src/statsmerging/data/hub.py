"""The Hugging Face hub: whether it may be asked, and files of it by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from statsmerging.records.errors import MissingFilesError

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
