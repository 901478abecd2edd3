"""Choice among the values of a grid, by agreement with the teachers on unlabeled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from statsmerging.choices import TuningRule

#: Task → share of its images on which a model and the teacher agree; empty: the model diverged.
Agreements = Mapping[str, float]


def leaders(rule: TuningRule, tried: Sequence[Agreements]) -> list[int]:
    """The values that are ahead, one for each set of tasks that the rule looks at.

    A value that is not among them cannot be chosen any more, whatever is tried after it.

    Args:
        rule: ``agreement`` looks at all tasks, ``leave_one_task_out`` at all but each one in turn.
        tried: of the values in their order. Of equal ones the first is ahead.

    Returns:
        Their numbers, from 0; none if all models diverged.
    """
    known = [number for number, shares in enumerate(tried) if shares]
    if not known:
        return []
    tasks = list(tried[known[0]])
    left_out = tasks if rule == "leave_one_task_out" and len(tasks) > 1 else [None]
    return [
        max(known, key=lambda number: fmean(_without(tried[number], task))) for task in left_out
    ]


def chosen(rule: TuningRule, tried: Sequence[Agreements]) -> int | None:
    """The value that leads most often; of equal ones that with the higher agreement, or the first.

    Returns:
        Its number, from 0; ``None`` if all models diverged.
    """
    ahead = leaders(rule, tried)
    return max(
        sorted(set(ahead)),
        key=lambda number: (ahead.count(number), fmean(tried[number].values())),
        default=None,
    )


def at_edge(value: float, grid: Sequence[float], may_be: Callable[[float], bool]) -> bool:
    """Whether a value is the lowest or highest of its grid, with valid values beyond it.

    Args:
        may_be: whether a value is a valid one.
    """
    ordered = sorted(set(grid))
    if len(ordered) < 2:
        return False
    lowest, second, *_ = ordered
    *_, last_but_one, highest = ordered
    if value == lowest:
        return may_be(2 * lowest - second) or (lowest > 0 and may_be(lowest / 2))
    return value == highest and may_be(2 * highest - last_but_one)


def _without(shares: Agreements, task: str | None) -> list[float]:
    return [share for name, share in shares.items() if name != task]
