"""``coefficients.parquet`` and ``statistics.parquet``: a run's tables by layer and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq

from statsmerging.errors import first_line, printable
from statsmerging.store.files import atomic_path
from statsmerging.store.received import ReceivedError

if TYPE_CHECKING:
    from torch import Tensor

#: Columns of the table in which statistics are compared with coefficients.
_OTHER_COLUMNS = {"method", "coefficient", "statistic", "value"}

#: Cells of the largest table that is read.
LARGEST = 20_000_000


def write_coefficients(
    path: Path, learned: Mapping[str, Tensor], layers: Sequence[str], tasks: Sequence[str]
) -> None:
    """Write columns ``method``, ``layer``, ``task``, ``coefficient``.

    Args:
        learned: method → L × K; or K, the same for every layer, written with layer ``all``.
    """
    frame = pd.DataFrame(
        [
            (method, layer, task, value)
            for method, coefficients in learned.items()
            for layer, row in zip(
                layers if coefficients.dim() == 2 else ("all",),
                coefficients.reshape(-1, len(tasks)).tolist(),
                strict=True,
            )
            for task, value in zip(tasks, row, strict=True)
        ],
        columns=["method", "layer", "task", "coefficient"],
    )
    _write(path, frame)


def read_coefficients(path: Path) -> pd.DataFrame:
    """The table that ``write_coefficients`` wrote.

    Raises:
        ReceivedError: the file is damaged, or holds another table.
    """
    return _read(path, "coefficients", ("method", "layer", "task"), ("coefficient",))


def read_statistics(path: Path) -> pd.DataFrame:
    """The table that ``write_statistics`` wrote.

    Raises:
        ReceivedError: the file is damaged, or holds another table.
    """
    table = _read(path, "statistics", ("layer", "task"), None)
    taken = sorted(set(table.columns) & _OTHER_COLUMNS)
    if taken:
        raise ReceivedError(f"{printable(str(path))}: no statistic is named {', '.join(taken)}")
    return table


def write_statistics(
    path: Path,
    values: Tensor,
    columns: Sequence[str],
    layers: Sequence[str],
    tasks: Sequence[str],
) -> None:
    """Write columns ``layer``, ``task``, and one for each statistic.

    Args:
        values: L × K × F.
        columns: names of the F statistics.
    """
    frame = pd.DataFrame(product(layers, tasks), columns=["layer", "task"])
    frame[list(columns)] = values.flatten(end_dim=1).numpy()
    _write(path, frame)


def _read(
    path: Path, what: str, names: Sequence[str], numbers: Sequence[str] | None
) -> pd.DataFrame:
    """Read text columns ``names`` and number columns ``numbers``; ``None``: all other columns."""
    try:
        about = pq.read_metadata(path)
        if about.num_rows * about.num_columns > LARGEST:
            raise ValueError(f"{about.num_rows} rows of {about.num_columns} columns are too many")
        table = pd.read_parquet(path, columns=None if numbers is None else [*names, *numbers])
        numbers = numbers or [name for name in table.columns if name not in names]
        if any(not isinstance(cell, str) for name in names for cell in table[name].unique()):
            raise ValueError(f"{', '.join(names)} must be texts")
        return table.astype(dict.fromkeys(numbers, float))
    except Exception as error:  # pandas and pyarrow raise errors of many kinds
        where = printable(str(path))
        raise ReceivedError(
            f"{where} is no table of {what}: {printable(first_line(error))}"
        ) from error


def _write(path: Path, frame: pd.DataFrame) -> None:
    with atomic_path(path) as partial:
        frame.to_parquet(partial)
