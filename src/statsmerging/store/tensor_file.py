"""A file of tensors that is written part by part, so that it may be larger than the memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

#: Our types → those of safetensors.
_TYPES = {"uint8": "U8", "int64": "I64"}

#: Bytes to which the header is filled up, so that every tensor lies where its type needs it.
_ALIGNMENT = 8


class TensorFile:
    """A safetensors file whose shapes are known before its values.

    Its library writes whole tensors only. The format is a length, a header in JSON and the bytes of
    the tensors (https://huggingface.co/docs/safetensors, "Format").

    Args:
        stream: an empty file, open for writing bytes.
        shapes: name → type (uint8 or int64) and shape of each tensor.
    """

    def __init__(self, stream: BinaryIO, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self._stream = stream
        # The wider type first: its tensors are aligned then, whatever the sizes of the others.
        ordered = sorted(shapes, key=lambda name: (-np.dtype(shapes[name][0]).itemsize, name))
        header, starts, end = {}, {}, 0
        for name in ordered:
            dtype, shape = np.dtype(shapes[name][0]), shapes[name][1]
            starts[name], end = end, end + dtype.itemsize * math.prod(shape)
            header[name] = {
                "dtype": _TYPES[dtype.name],
                "shape": shape,
                "data_offsets": [starts[name], end],
            }
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        stream.write(len(text).to_bytes(8, "little") + text)
        self._starts = {name: 8 + len(text) + start for name, start in starts.items()}
        self._shapes = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in shapes.items()}

    def write(self, name: str, first: int, rows: np.ndarray) -> None:
        """Write some rows of a tensor.

        Args:
            first: number of the first of them in the tensor.

        Raises:
            ValueError: rows of another type or shape, or beyond the last one.
        """
        dtype, shape = self._shapes[name]
        if rows.dtype != dtype or rows.shape[1:] != shape[1:] or first + len(rows) > shape[0]:
            raise ValueError(
                f"{name}: rows {first} to {first + len(rows)}, {rows.dtype} {rows.shape[1:]}, into "
                f"{dtype} {shape}"
            )
        self._stream.seek(self._starts[name] + first * dtype.itemsize * math.prod(shape[1:]))
        self._stream.write(np.ascontiguousarray(rows).data)
