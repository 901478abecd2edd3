"""Checkpoints from which a killed training continues: written whole, checked when read."""

from __future__ import annotations

import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from xxhash import xxh3_128

from statsmerging.records.errors import UserError
from statsmerging.records.files import atomic_path, remove_partials, set_aside
from statsmerging.records.received import received_file

log = logging.getLogger(__name__)

#: Bytes of the checksum, with which a checkpoint ends.
CHECKSUM = 16


class CheckedCheckpoints(CheckpointIO):
    """Lightning's checkpoints, each as one file that ends with the checksum of what stands before.

    A file is written beside its place and renamed, so it needs no second file system and is never
    half there; the checkpoint before it is kept.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_path(path) as partial:
            with partial.open("wb") as stream:
                stream.write(content.getbuffer())
                stream.write(xxh3_128(content.getbuffer()).digest())
            if path.exists():
                path.replace(_before(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = True,  # whatever is asked for: a checkpoint is data
    ) -> dict[str, Any]:
        content = _checked(Path(path))
        checkpoint: dict[str, Any] = torch.load(
            content, map_location=map_location, weights_only=True
        )
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
        with suppress(OSError):  # what holds other files stays
            # Where several processes learn, Lightning makes a folder for one file and leaves it.
            Path(path).parent.rmdir()


def continue_from(path: Path) -> Path | None:
    """The checkpoint at ``path``, or else the one before; ``None``: training starts anew.

    One that is not what was written, or of another format, is set aside. Training ends at the same
    numbers wherever it continues from.
    """
    remove_partials(path)
    damaged = False
    for file in (path, _before(path)):
        if not os.path.lexists(file):
            continue
        if _is_sound(file):
            log.info("continuing from %s", file)
            return file
        log.warning("%s is not what was written there: set aside as %s", file, set_aside(file))
        damaged = True
    if damaged:
        log.warning("no sound checkpoint is left: the training starts anew")
    return None


def forget(path: Path) -> None:
    """Remove the checkpoints of a training whose outcome is safe."""
    for file in (path, _before(path)):
        if file.exists():
            file.unlink()


def _before(path: Path) -> Path:
    return path.with_name(f"{path.stem}.before{path.suffix}")


def _is_sound(path: Path) -> bool:
    try:
        torch.load(_checked(path), map_location="cpu", weights_only=True)
    except Exception:  # torch raises errors of many kinds for what it cannot read
        return False
    return True


def _checked(path: Path) -> io.BytesIO:
    """What was saved, without its checksum.

    Raises:
        UserError: it is not what was written.
    """
    content = received_file(path.parent, path.name).read_bytes()
    saved, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    if xxh3_128(saved).digest() != checksum:
        raise UserError(f"{path} is not what was written there")
    return io.BytesIO(saved)
