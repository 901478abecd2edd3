"""``coefficients.parquet``: one row per layer and task."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from torch import Tensor

from statsmerging.records.files import atomic_path


def write_coefficients(
    path: Path, coefficients: Tensor, layers: tuple[str, ...], tasks: tuple[str, ...]
) -> None:
    """Write columns ``layer``, ``task``, ``coefficient``.

    Args:
        coefficients: L × K; or K, the same for every layer, written with layer ``all``.
    """
    rows = coefficients.reshape(-1, len(tasks)).tolist()
    names = layers if coefficients.dim() == 2 else ("all",)
    frame = pd.DataFrame(
        [
            (layer, task, value)
            for layer, row in zip(names, rows, strict=True)
            for task, value in zip(tasks, row, strict=True)
        ],
        columns=["layer", "task", "coefficient"],
    )
    with atomic_path(path) as partial:
        frame.to_parquet(partial)
