"""Paired statistics of two methods on the same test images: an interval, and three tests.

Images are the units of everything here. Seeds of the merging step are averaged for each image
before anything else, so a value is the share of a method's seeds that have the image right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

#: Resamples of the bootstrap, the seed of its random numbers, and the level of its intervals.
DRAWS, SEED, LEVEL = 10_000, 0, 0.95

#: Numbers in memory at a time, while resampling.
_CELLS = 1 << 22

#: Decimals of a difference; beyond them, means over seeds differ by rounding alone.
_DECIMALS = 12

Values = NDArray[np.float64]


class Votes(NamedTuple):
    """McNemar's test on one task.

    Attributes:
        better: images on which the first method is right more often than the second.
        worse: images on which it is right less often.
        p: two-sided exact p-value that either is as likely.
    """

    better: int
    worse: int
    p: float


def bootstrap_interval(differences: Sequence[Values]) -> tuple[float, float]:
    """The ``LEVEL`` percentile interval of the difference of two average accuracies.

    The average is the unweighted mean over tasks. Each of the ``DRAWS`` resamples images within
    each task, the same ones for both methods and in all zoos, and the zoos where there are several
    (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).

    Args:
        differences: per task Z × N, first minus second method, on N images in each of Z zoos.

    Returns:
        Low and high end, in the unit of the differences.
    """
    random = np.random.default_rng(SEED)
    zoos = len(differences[0])
    weights = random.multinomial(zoos, np.full(zoos, 1 / zoos), size=DRAWS) / zoos
    means = [
        np.mean([_resampled_means(mix @ values, draws, random) for values in differences], axis=0)
        for mix, draws in zip(*np.unique(weights, axis=0, return_counts=True), strict=True)
    ]
    outside = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside])
    return float(low), float(high)


def _resampled_means(values: Values, draws: int, random: np.random.Generator) -> Values:
    """Means over resampled images, one for each draw, of the values of N images.

    Images with equal values need not be told apart: a resample is a multinomial draw of how often
    each of the few distinct values occurs.
    """
    distinct, times = np.unique(values.round(_DECIMALS), return_counts=True)
    step = max(1, _CELLS // len(distinct))
    parts = [
        random.multinomial(len(values), times / len(values), size=min(step, draws - start))
        @ distinct
        for start in range(0, draws, step)
    ]
    return np.concatenate(parts) / len(values)


def mcnemar(difference: Values) -> Votes:
    """McNemar's exact test: of the images on which the methods differ, does one have more?

    With one seed and zoo these are the images that one method alone has right (McNemar,
    Psychometrika 1947); with several, each image still has one vote, for the method that has it
    right more often.

    Args:
        difference: N, first minus second method.
    """
    signs = np.sign(difference.round(_DECIMALS))
    better, worse = int((signs > 0).sum()), int((signs < 0).sum())
    differing = better + worse
    p = float(stats.binomtest(better, differing).pvalue) if differing else 1.0
    return Votes(better, worse, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of the p-values of several tests (Scandinavian Journal of Statistics 1979).

    Rejecting where the corrected value is at most α errs anywhere with probability at most α.
    """
    order = np.argsort(p_values, kind="stable")
    remaining = np.arange(len(order), 0, -1)
    corrected = np.maximum.accumulate(remaining * np.asarray(p_values)[order])
    values = np.empty(len(order))
    values[order] = np.minimum(corrected, 1.0)
    return [float(value) for value in values]


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test over tasks (Demšar, JMLR 2006).

    Args:
        differences: of the accuracies, one per task; tasks without a difference are left out.
    """
    rounded = np.round(differences, _DECIMALS)
    differing = rounded[rounded != 0]
    return float(stats.wilcoxon(differing).pvalue) if len(differing) else 1.0


def p_text(p: float) -> str:
    """``0.031``, or ``< 0.001``."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
