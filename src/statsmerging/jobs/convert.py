"""``job=convert``: a foreign checkpoint as safetensors that our backbones and zoos read."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from statsmerging.errors import UserError
from statsmerging.store.files import new_path, write_json
from statsmerging.store.hashing import file_sha256
from statsmerging.zoo.formats.checkpoints import files_of, read_file
from statsmerging.zoo.formats.foreign import HEAD, Foreign, read_foreign
from statsmerging.zoo.weights import write_weights

if TYPE_CHECKING:
    from statsmerging.app.run import Run

log = logging.getLogger(__name__)


def convert(run: Run) -> None:
    """Write ``job.target`` and, beside it, a card that names its source."""
    job = run.config.job
    source, base, target = job.source, job.base, job.target
    if source is None or not source.exists():
        raise UserError(f"job.source={source}: no such file or folder")
    if target is None or target.suffix != ".safetensors":
        raise UserError(f"job.target={target}: the name must end with .safetensors")
    foreign = read_foreign(source, None if base is None else read_file(base).tensors)
    card = _card(foreign, source, base)
    with new_path(target) as partial:
        write_weights(partial, foreign.tensors)
    with new_path(target.with_suffix(".json")) as partial:
        write_json(partial, card)
    log.info(
        "written: %s (%s, %d tensors, %d parameters, %d tensors dropped)",
        target,
        foreign.family,
        card["tensors"],
        card["parameters"],
        len(foreign.dropped),
    )


def _card(foreign: Foreign, source: Path, base: Path | None) -> dict[str, Any]:
    return {
        "family": foreign.family,
        "source": [_file(path) for path in files_of(source)],
        "base": None if base is None else _file(base),
        "tensors": len(foreign.tensors),
        "parameters": sum(tensor.numel() for tensor in foreign.tensors.values()),
        "dropped": list(foreign.dropped),
        **({"normalize": foreign.normalises} if foreign.family == HEAD else {}),
    }


def _file(path: Path) -> dict[str, Any]:
    return {"name": path.name, "sha256": file_sha256(path), "bytes": path.stat().st_size}
