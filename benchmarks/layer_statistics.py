"""Statistics of full-size experts against an SVD of every matrix.

    python -m benchmarks.layer_statistics --tasks 8

SVDs and eigenvalues are those of one expert, timed in turns with the statistics of all and counted
for all; the accuracy is that of its three largest singular values against float64. The cached
statistics are read as a job reads them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import CLOCKS, median_ratio, parser, publish, seconds_in_turns
from benchmarks.random_bank import backbone, random_bank
from statsmerging.choices import Feature
from statsmerging.learning.mergeable import cached, layer_features
from statsmerging.learning.settings import StatisticsSettings
from statsmerging.merging import LayerStatistics, TaskVectorBank
from statsmerging.merging.statistics import layer_statistics
from statsmerging.store.cache import Cache

SVD = "torch.linalg.svd of every matrix"


def main() -> None:
    """Measure and print one table."""
    options = parse_options()
    torch.manual_seed(0)
    bank = random_bank(backbone(options.backbone, 224), options.tasks)
    matrices = expert_matrices(bank)
    found = layer_statistics(bank)
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder))
        read(bank, cache)
        ways = {
            "statistics of all experts": lambda: layer_statistics(bank),
            "the same, cached": lambda: read(bank, cache),
            "all eigenvalues of every Gram matrix, float64": lambda: eigenvalues(matrices),
            SVD: lambda: [torch.linalg.svd(m, full_matrices=False) for m in matrices.values()],
        }
        seconds = seconds_in_turns(ways, options.rounds, now=CLOCKS[options.clock])
    for way in list(ways)[2:]:
        seconds[way] = [options.tasks * each for each in seconds[way]]
    rows = [
        {
            "way": way,
            "s": statistics.median(seconds[way]),
            "× faster": median_ratio(seconds[SVD], seconds[way]),
        }
        for way in ways
    ]
    title = f"Statistics ({options.clock} clock): {options.backbone}, K = {options.tasks}"
    error = largest_error(found, matrices)
    publish(options.json, "layer_statistics", title, rows, largest_relative_error=error)


def parse_options() -> argparse.Namespace:
    """Sizes of the benchmark."""
    options = parser(__doc__)
    options.add_argument("--backbone", default="vit_base_patch32_clip_224", help="timm name")
    options.add_argument("--tasks", type=int, default=8, help="K")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--clock", choices=list(CLOCKS), default="wall")
    arguments = options.parse_args()
    if arguments.small:
        arguments.tasks, arguments.rounds = 2, 1
    return arguments


def read(bank: TaskVectorBank, cache: Cache) -> LayerStatistics:
    """The paper's four statistics, through the cache as a job does it."""
    features: list[Feature] = ["mean", "variance", "magnitude", "singular_values"]
    settings = StatisticsSettings(of="weights", features=features, rank=3, standardise="both")
    return layer_features(bank, settings, cached(cache, "random"))


def expert_matrices(bank: TaskVectorBank) -> dict[str, Tensor]:
    """The first expert's weight matrices, convolutions as out × rest."""
    expert = bank.expert(bank.tasks[0])
    return {name: expert[name].flatten(1) for name in bank.layers if expert[name].dim() > 1}


def eigenvalues(matrices: dict[str, Tensor]) -> None:
    """What gave the singular values before: all the squares, of which three were kept."""
    for matrix in matrices.values():
        wide = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT).double()
        torch.linalg.eigvalsh(wide @ wide.mT)


def largest_error(found: LayerStatistics, matrices: dict[str, Tensor]) -> float:
    """Of the three largest singular values of the first expert, relative to float64's."""
    column = found.columns.index("singular_value_1")
    errors = []
    for name, matrix in matrices.items():
        exact = torch.linalg.svdvals(matrix.double())[:3]
        ours = found.values[found.layers.index(name), 0, column : column + len(exact)]
        errors.append(((ours - exact) / exact).abs().max())
    return float(torch.stack(errors).max())


if __name__ == "__main__":
    main()
