"""Reads back what W&B writes offline: a log of protobuf messages, framed as in LevelDB."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

#: Bytes of the file's and of every chunk's header; a chunk never crosses a block's end.
HEADER, BLOCK = 7, 32768

#: Kinds of chunk: a whole message, and the last part of one that was split.
WHOLE, LAST = 1, 4


@dataclass
class WandbRun:
    """One W&B run as a server would see it."""

    path: Path
    facts: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    def curve(self, name: str) -> dict[int, float]:
        """Learning step → value."""
        return {row["learning_step"]: row[name] for row in self.history if name in row}


def offline_runs(directory: Path) -> list[WandbRun]:
    """W&B runs below a run directory, oldest first."""
    return [read_run(path) for path in sorted(directory.glob("wandb/offline-run-*/*.wandb"))]


def read_run(path: Path) -> WandbRun:
    run = WandbRun(path)
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.facts = record.run
            run.config |= _values(record.run.config.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "artifact" or (kind == "request" and record.request.HasField("log_artifact")):
            artifact = (
                record.artifact if kind == "artifact" else record.request.log_artifact.artifact
            )
            run.artifacts[artifact.name] = [entry.path for entry in artifact.manifest.contents]
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)
    return run


def _records(data: bytes) -> Iterator[Any]:
    """All whole messages; a log that was cut short ends with the last of them."""
    assert data[:4] == b":W&B"
    record: Any = vars(wandb_internal_pb2)["Record"]  # made at import, unknown to type checkers
    position, message = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + HEADER])
        position += HEADER
        message += data[position : position + size]
        position += size
        if position > len(data):
            return
        if kind in (WHOLE, LAST):
            yield record.FromString(message)
            message = b""


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
