"""``coefficients.parquet`` and ``statistics.parquet``: a run's tables by layer and task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from statsmerging.errors import first_line, printable
from statsmerging.store.files import atomic_path
from statsmerging.store.received import ReceivedError

if TYPE_CHECKING:
    from torch import Tensor

    from statsmerging.merging.bank import Coefficient

#: Columns of the table in which statistics are compared with coefficients.
_OTHER_COLUMNS = {"method", "coefficient", "statistic", "value"}

_OF_DIRECTIONS = ("direction", "singular_value")

#: Most bins of the singular directions of a layer.
BINS = 12

#: Cells of the largest table that is read.
LARGEST = 20_000_000


def write_coefficients(path: Path, learned: Mapping[str, Sequence[Coefficient]]) -> None:
    """Write columns ``method``, ``layer``, ``task``, ``coefficient``.

    Where a method has coefficients of singular directions, there are also ``direction``, from 0
    for the largest singular value, and ``singular_value``; both are empty for other coefficients.

    Args:
        learned: method → its coefficients.
    """
    frame = pd.DataFrame(
        [(method, *each) for method, coefficients in learned.items() for each in coefficients],
        columns=["method", "layer", "task", "coefficient", *_OF_DIRECTIONS],
    ).dropna(axis="columns", how="all")
    _write(path, frame)


def read_coefficients(path: Path) -> pd.DataFrame:
    """The table that ``write_coefficients`` wrote, with empty columns where it left some out.

    Raises:
        ReceivedError: the file is damaged, or holds another table.
    """
    table = _read(
        path, "coefficients", ("method", "layer", "task"), ("coefficient",), optional=_OF_DIRECTIONS
    )
    return table.reindex(columns=["method", "layer", "task", "coefficient", *_OF_DIRECTIONS])


def of_layers(coefficients: pd.DataFrame) -> pd.DataFrame:
    """``read_coefficients`` with one row per method, layer and task.

    The coefficient of a layer with singular directions is their mean, weighted by their energy σ².
    """
    weights = coefficients["singular_value"].pow(2).fillna(1.0)
    keys = ["method", "layer", "task"]
    sums = (
        coefficients[keys]
        .assign(weight=weights, coefficient=coefficients["coefficient"] * weights)
        .groupby(keys, sort=False)
        .sum()
    )
    return (sums["coefficient"] / sums["weight"]).rename("coefficient").reset_index()


def of_directions(coefficients: pd.DataFrame) -> pd.DataFrame:
    """Means of ``read_coefficients`` over singular directions of about the same rank.

    A layer with r directions of each expert has min(r, BINS) bins of i / r, from the largest
    singular value (i = 0) on. A layer with one, such as a bias, is left out.

    Columns: ``method``, ``layer``, ``task``, ``start`` and ``end`` of the bin, ``coefficient``.
    """
    rows = coefficients.dropna(subset=["direction"])
    rank = rows.groupby(["method", "layer"])["direction"].transform("max") + 1
    rows, rank = rows[rank > 1], rank[rank > 1]
    bins = rank.clip(upper=BINS)
    place = np.floor(rows["direction"] * bins / rank)
    placed = rows.assign(start=place / bins, end=(place + 1) / bins)
    keys = ["method", "layer", "task", "start", "end"]
    return placed.groupby(keys, sort=False)["coefficient"].mean().reset_index()


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
    path: Path,
    what: str,
    names: Sequence[str],
    numbers: Sequence[str] | None,
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """Read text columns ``names`` and number columns ``numbers``; ``None``: all other columns.

    Args:
        optional: further columns of numbers, if the file has them.
    """
    try:
        about = pq.read_metadata(path)
        if about.num_rows * about.num_columns > LARGEST:
            raise ValueError(f"{about.num_rows} rows of {about.num_columns} columns are too many")
        if numbers is not None:
            numbers = [*numbers, *(name for name in optional if name in about.schema.names)]
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
