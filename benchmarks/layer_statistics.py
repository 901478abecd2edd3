"""Statistics of full-size experts against an SVD of every matrix.

    python -m benchmarks.layer_statistics --tasks 8

The SVDs are those of one expert, timed for all; the accuracy is that of its three largest singular
values against float64. The second call reads the cache.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import Result, parser, publish
from benchmarks.random_bank import backbone, random_bank
from statsmerging.choices import Feature
from statsmerging.learning.mergeable import cached, layer_features
from statsmerging.learning.settings import StatisticsSettings
from statsmerging.merging import TaskVectorBank
from statsmerging.merging.statistics import LayerStatistics
from statsmerging.store.cache import Cache


def main() -> None:
    """Measure and print one table."""
    options = parse_options()
    torch.manual_seed(0)
    bank = random_bank(backbone(options.backbone, 224), options.tasks)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        first, statistics = timed(lambda: read(bank, cache))
        second, _ = timed(lambda: read(bank, cache))
    matrices = expert_matrices(bank)
    svd, _ = timed(lambda: [torch.linalg.svd(m, full_matrices=False) for m in matrices.values()])
    rows = [
        {"way": "statistics of all experts", "s": first, "× faster": svd * options.tasks / first},
        {"way": "the same, cached", "s": second, "× faster": svd * options.tasks / second},
        {"way": "torch.linalg.svd of every matrix", "s": svd * options.tasks, "× faster": 1.0},
    ]
    title = f"Statistics: {options.backbone}, K = {options.tasks}"
    error = largest_error(statistics, matrices)
    publish(options.json, "layer_statistics", title, rows, largest_relative_error=error)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--tasks", type=int, default=8, help="K")
    arguments = options.parse_args()
    if arguments.small:
        arguments.tasks = 2
    return arguments


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def read(bank: TaskVectorBank, cache: Cache) -> LayerStatistics:
    """The paper's four statistics, through the cache as a job does it."""
    features: list[Feature] = ["mean", "variance", "magnitude", "singular_values"]
    settings = StatisticsSettings(of="weights", features=features, rank=3, standardise="both")
    return layer_features(bank, settings, cached(cache, "random"))


def expert_matrices(bank: TaskVectorBank) -> dict[str, Tensor]:
    """The first expert's weight matrices, convolutions as out × rest."""
    expert = bank.expert(bank.tasks[0])
    return {name: expert[name].flatten(1) for name in bank.layers if expert[name].dim() > 1}


def largest_error(statistics: LayerStatistics, matrices: dict[str, Tensor]) -> float:
    """Of the three largest singular values of the first expert, relative to float64's."""
    column = statistics.columns.index("singular_value_1")
    errors = []
    for name, matrix in matrices.items():
        exact = torch.linalg.svdvals(matrix.double())[:3]
        found = statistics.values[statistics.layers.index(name), 0, column : column + len(exact)]
        errors.append(((found - exact) / exact).abs().max())
    return float(torch.stack(errors).max())


if __name__ == "__main__":
    main()
