"""Repetitions of a setting: seeds of the merging step, and sets of experts (zoos) of other seeds.

A mean is the mean over zoos of the means over seeds, so every zoo has the same weight. A deviation
is that of the zoos' means; where there is one zoo, that of the seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from statsmerging.runs.results import MethodRow, RunResults

#: Prefixes of the keys that say how experts are made.
MAKERS = ("zoo.", "heterogeneous.")


class Repetition(NamedTuple):
    """One zoo, merged with one seed.

    Attributes:
        zoo: name of the zoo; empty if there is one only.
        seed: of the merging step.
    """

    zoo: str
    seed: int


class RepeatedRun(NamedTuple):
    """Results of a run that repeats a setting, and the name of its zoo."""

    results: RunResults
    zoo: str = ""

    @property
    def repetition(self) -> Repetition:
        """Which repetition the run is."""
        return Repetition(self.zoo, self.results.seed)


class Spread(NamedTuple):
    """Mean and deviation over repetitions.

    Attributes:
        mean: over the zoos of the means over the seeds.
        std: sample standard deviation (with n − 1) over the zoos, of their means; with one zoo over
            the seeds; ``None`` with one repetition.
        seeds: number of seeds of each zoo.
    """

    mean: float
    std: float | None
    seeds: tuple[int, ...]

    @property
    def over(self) -> str:
        """What the deviation is over, ``3 zoos`` or ``3 seeds``; empty without one."""
        if self.std is None:
            return ""
        return f"{len(self.seeds)} zoos" if len(self.seeds) > 1 else f"{self.seeds[0]} seeds"


def spread(values: Mapping[Repetition, float]) -> Spread:
    """Mean and deviation of at least one value."""
    of_zoos: dict[str, list[float]] = {}
    for repetition, value in values.items():
        of_zoos.setdefault(repetition.zoo, []).append(value)
    means = [fmean(found) for found in of_zoos.values()]
    repeated = means if len(means) > 1 else next(iter(of_zoos.values()))
    deviation = stdev(repeated) if len(repeated) > 1 else None
    return Spread(fmean(means), deviation, tuple(map(len, of_zoos.values())))


def rows_by_method(runs: Iterable[RepeatedRun]) -> dict[str, dict[Repetition, MethodRow]]:
    """Method → repetition → row, in the order of the first run; not every run has every method.

    Of runs with the same zoo and seed, the first counts.
    """
    rows: dict[str, dict[Repetition, MethodRow]] = {}
    for run in runs:
        for name, row in run.results.methods.items():
            rows.setdefault(name, {}).setdefault(run.repetition, row)
    return rows


def seeds_by_zoo(repetitions: Iterable[Repetition]) -> dict[str, int]:
    """Zoo → number of its seeds, in the order of the zoos' names."""
    distinct = set(repetitions)
    return {
        zoo: sum(other.zoo == zoo for other in distinct)
        for zoo in in_order({each.zoo for each in distinct})
    }


def in_order(zoos: Iterable[str]) -> list[str]:
    """Names of zoos, numbers by size."""
    return sorted(zoos, key=zoo_order)


def zoo_order(zoo: str) -> tuple[int, str]:
    """Orders names of zoos."""
    return len(zoo), zoo


def share_of(own: Iterable[Repetition], every: Iterable[Repetition]) -> str:
    """``1 of 3 zoos, 2 of 3 seeds``, if some are missing; empty if none.

    One seed in each zoo is none too few: a method that draws nothing at random needs no more.
    """
    mine, whole = seeds_by_zoo(own), seeds_by_zoo(every)
    parts = []
    if len(mine) < len(whole):
        parts.append(f"{len(mine)} of {len(whole)} zoos")
    missing = any(count < whole[zoo] for zoo, count in mine.items())
    if missing and max(mine.values()) > 1:
        parts.append(f"{span(mine.values())} of {max(whole[zoo] for zoo in mine)} seeds")
    return ", ".join(parts)


def span(counts: Iterable[int]) -> str:
    """``3``, or ``1 to 3``."""
    distinct = sorted(set(counts))
    return str(distinct[0]) if len(distinct) == 1 else f"{distinct[0]} to {distinct[-1]}"


def is_expert_seed(key: str) -> bool:
    """Whether a key of the config is a seed that experts are made with."""
    return key.startswith(MAKERS) and key.rpartition(".")[2] == "seed"


def telling_seeds(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Seeds of experts by which runs differ, without those that another one gives.

    Args:
        configs: of the runs, dotted key → value.
    """
    keys = dict.fromkeys(key for config in configs for key in config if is_expert_seed(key))
    columns: dict[tuple[str, ...], str] = {}
    for key in sorted(keys, key=_depth):
        values = tuple(_text(config, key) for config in configs)
        if len({value for value in values if value}) > 1:
            columns.setdefault(values, key)
    return tuple(columns.values())


def zoo_name(config: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The name of a run's zoo: its seed, or its seeds with their keys; empty if it has none.

    Args:
        config: dotted key → value.
        keys: of ``telling_seeds``.
    """
    seeds = {key: text for key in keys if (text := _text(config, key))}
    if len(keys) == 1:
        return "".join(seeds.values())
    return " ".join(f"{key}={seed}" for key, seed in seeds.items())


def _text(config: Mapping[str, Any], key: str) -> str:
    """A seed as text; empty where there is none, as for experts that were downloaded."""
    return "" if config.get(key) is None else str(config[key])


def _depth(key: str) -> tuple[int, bool]:
    """Seeds of whole zoos before those of their parts, that of the merged zoo first."""
    return key.count("."), not key.startswith("zoo.")
