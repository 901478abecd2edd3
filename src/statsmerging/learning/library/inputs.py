"""Unlabeled inputs of a library user: tensors, data sets or loaders, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from statsmerging.data.images import held_out_rows
from statsmerging.errors import UserError, first_line, printable

#: A tensor N × …; a data set, whose items are inputs; or a loader, whose items are batches.
Inputs = Tensor | np.ndarray | Dataset[Any] | Iterable[Any]

#: Bytes of an input's digest, as many as an image's.
_DIGEST_BYTES = 16


def read_inputs(inputs: Mapping[str, Inputs]) -> dict[str, Tensor]:
    """The inputs of every task as one tensor, N × …, floating point in float32.

    A tensor stays where it is. What has a length and numbered items is a data set, e.g. a list of
    tensors; any other iterable is a loader. Of an item that is a pair, or longer, the first part
    is the input, and the rest, such as a label, is not looked at.

    Raises:
        UserError: no inputs, items that are no tensors or of different shapes, or tasks with inputs
            of different shapes or types.
    """
    read = {task: _read(task, given) for task, given in inputs.items()}
    kinds = {task: (tuple(each.shape[1:]), each.dtype) for task, each in read.items()}
    first = next(iter(kinds))
    for task, kind in kinds.items():
        if kind != kinds[first]:
            raise UserError(
                f"inputs of {first} and {task} differ, {_told(read[first])} and "
                f"{_told(read[task])}: a step sees all tasks together, so give them one shape"
            )
    return read


def hold_out(task: str, inputs: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The inputs to learn from, and those that tell the agreement, as a job parts its images.

    Args:
        inputs: N × ….
        share: of those that are held out; 0: both parts are all inputs.

    Raises:
        UserError: all inputs are copies of one.
    """
    if share == 0:
        return inputs, inputs
    held = held_out_rows(_digests(inputs), share)
    if held is None:
        raise UserError(
            f"held_out={share} needs at least two different inputs of {printable(task)}; "
            "held_out=0 does without"
        )
    return inputs[~held], inputs[held]


def _read(task: str, given: Inputs) -> Tensor:
    name = printable(task)
    try:
        read = _one_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"inputs of {name} cannot be read: {first_line(error)}") from error
    if read.dim() < 2 or not len(read):
        raise UserError(
            f"inputs of {name} are {_told(read)}: give at least one input, each with a dimension"
        )
    return read.float() if read.is_floating_point() else read


def _one_tensor(given: Any) -> Tensor:
    if isinstance(given, Tensor | np.ndarray):
        return _tensor(given)
    join = torch.stack
    if isinstance(given, IterableDataset):
        parts = [_tensor(item) for item in given]
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        # By numbers: a data set without an iterator of its own would be asked beyond its end.
        parts = [_tensor(given[number]) for number in range(len(given))]
    elif hasattr(given, "__iter__"):
        join, parts = torch.cat, [_tensor(batch) for batch in given]
    else:
        raise TypeError(f"{type(given).__name__} is no tensor, data set or loader")
    return join(parts) if parts else torch.empty(0)


def _tensor(item: Any) -> Tensor:
    """An input or a batch of them, without its label."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    if isinstance(item, np.ndarray):
        return torch.from_numpy(item)
    if not isinstance(item, Tensor):
        raise TypeError(f"an item is {type(item).__name__}, not a tensor or (tensor, label)")
    return item.detach()


def _digests(inputs: Tensor) -> Tensor:
    """Hash of each input's bytes, uint8, N × 16."""
    rows = inputs.cpu().contiguous().flatten(1).view(torch.uint8).numpy()
    digests = [hashlib.blake2b(row.data, digest_size=_DIGEST_BYTES).digest() for row in rows]
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype=np.uint8).copy()).view(
        len(rows), _DIGEST_BYTES
    )


def _told(inputs: Tensor) -> str:
    shape = " × ".join(map(str, inputs.shape[1:])) or "nothing"
    return f"{len(inputs)} of {shape} in {str(inputs.dtype).removeprefix('torch.')}"
