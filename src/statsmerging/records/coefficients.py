"""``coefficients.parquet``: one row per method, layer and task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch import Tensor

from statsmerging.records.files import atomic_path


def write_coefficients(
    path: Path, learned: Mapping[str, Tensor], layers: tuple[str, ...], tasks: tuple[str, ...]
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
    with atomic_path(path) as partial:
        frame.to_parquet(partial)
