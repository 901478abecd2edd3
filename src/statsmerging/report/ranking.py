"""The answer of a folder of runs: methods in the order of their averages, with intervals.

Methods compete where they were asked the same: with equal images, experts and stamps. Settings
within such a contest, e.g. kinds of labels, compete as if each had methods of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from statsmerging.report.across import renamed
from statsmerging.report.groups import PROBLEM, QUESTION, RunGroup, concerns, problem_of
from statsmerging.report.pairs import PairedMethods, by_test_images
from statsmerging.report.repetitions import Repetition, rows_by_method, seeds_by_zoo, span, spread
from statsmerging.report.tables.accuracy import sections_of
from statsmerging.report.words import setting_words
from statsmerging.runs.results import BOUNDS, MethodRow, method_title

Interval = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """A method of a contest; all numbers are fractions, means over zoos of means over seeds.

    Attributes:
        method: its name.
        title: its title.
        setting: what tells it from the same method in other settings, in words; often empty.
        rank: from 1; 0 for what is not ranked: bounds, and methods that ran with fewer zoos.
        average: over the seen tasks.
        normalised: average of accuracy / accuracy of the individual model.
        accuracy: task → accuracy.
        repeated: ``2 zoos × 3 seeds``, in words.
        interval: of the average, by a bootstrap over test images and zoos; ``None``: not known.
        behind: difference to the first.
        gap: interval of that difference; ``None`` for the first, or if it is not known.
    """

    method: str
    title: str
    setting: str
    rank: int
    average: float
    normalised: float | None
    accuracy: Mapping[str, float]
    repeated: str
    interval: Interval | None = None
    behind: float = 0.0
    gap: Interval | None = None

    @property
    def level(self) -> bool:
        """Whether it is the first, or not significantly below it."""
        return self.rank == 1 or (self.rank > 1 and self.gap is not None and self.gap[1] >= 0)


@dataclass(frozen=True)
class Contest:
    """Methods that may be ranked among each other.

    Attributes:
        problem: suite, backbone and stamps.
        own: what tells the problem from others of the folder, in words; often empty.
        kind: ``One static model`` or ``Not one static model`` where there are both; else empty.
        tasks: the seen tasks.
        places: best first; those that are not ranked last.
        bounds: pre-trained, individual and the like.
        zoos: sets of experts that the intervals are over; 0: nothing has an interval.
    """

    problem: str
    own: str
    kind: str
    tasks: Sequence[str]
    places: Sequence[Place]
    bounds: Sequence[Place]
    zoos: int

    @property
    def first(self) -> Place:
        """The method of the highest average."""
        return self.places[0]

    @property
    def level(self) -> list[Place]:
        """The first, and all that are not significantly below it."""
        return [place for place in self.places if place.level]


@dataclass(frozen=True)
class _Rival:
    """A method in one setting, with its rows, and its name among all rivals."""

    name: str
    method: str
    setting: str
    rows: Mapping[Repetition, MethodRow]

    @property
    def average(self) -> float:
        return _mean({each: row.average for each, row in self.rows.items()})

    @property
    def zoos(self) -> set[str]:
        return {each.zoo for each in self.rows}


def contests(groups: Sequence[RunGroup]) -> list[Contest]:
    """All contests, in the order of the groups; runs without a merged model give none."""
    alike: dict[tuple[str, ...], list[RunGroup]] = {}
    for group in groups:
        question = [str(group.settings.get(key)) for key in QUESTION]
        tasks = next(iter(group.results[0].methods.values())).accuracy
        key = (*question, *problem_of(group.settings, group.stamps), *tasks)
        alike.setdefault(key, []).append(group)
    return [contest for members in alike.values() for contest in _contests_of(members, groups)]


def _contests_of(groups: Sequence[RunGroup], every: Sequence[RunGroup]) -> Iterator[Contest]:
    """The contests of groups with one problem: static models, and others.

    Args:
        every: all groups of the folder.
    """
    rivals = list(_rivals(groups))
    merged = [rival for rival in rivals if rival.method not in BOUNDS]
    sections = sections_of({rival.name: next(iter(rival.rows.values())) for rival in merged})
    paired = _paired(groups)
    for kind, names in sections:
        found = [rival for rival in merged if rival.name in names]
        most = max(len(rival.zoos) for rival in found)
        # Numbers of other experts are no rivals.
        whole = [rival for rival in found if len(rival.zoos) == most]
        ranked = sorted(whole, key=lambda rival: -rival.average)
        tests = paired if paired and all(rival.name in paired.rows for rival in ranked) else None
        yield Contest(
            problem=" · ".join([groups[0].problem, *groups[0].stamps]),
            own=_own_problem(groups[0], every),
            kind=kind,
            tasks=list(next(iter(ranked[0].rows.values())).accuracy),
            places=[
                *(_place(rival, rank, tests, ranked[0]) for rank, rival in enumerate(ranked, 1)),
                *(_place(rival, 0) for rival in found if rival not in whole),
            ],
            bounds=[_place(rival, 0) for rival in rivals if rival.method in BOUNDS],
            zoos=0 if tests is None else tests.zoos,
        )


def _own_problem(group: RunGroup, every: Sequence[RunGroup]) -> str:
    told = {
        key: value
        for key, value in group.differences.items()
        if key.startswith(PROBLEM) and any(other.settings.get(key) != value for other in every)
    }
    return setting_words(told)


def _rivals(groups: Sequence[RunGroup]) -> Iterator[_Rival]:
    """Every method of every setting; one that scores alike in all settings once, without one."""
    rows = [rows_by_method(group.repeated) for group in groups]
    for method in dict.fromkeys(name for found in rows for name in found):
        having = [place for place, found in enumerate(rows) if method in found]
        scores = {_averages(rows[place][method]) for place in having}
        alike = len(scores) == 1 or method in BOUNDS
        for place in having[:1] if alike else having:
            yield _Rival(
                _name(method, place),
                method,
                "" if alike else _setting(groups[place], method),
                rows[place][method],
            )


def _name(method: str, place: int) -> str:
    """The name that ``_paired`` gives a method of the setting at this place; bounds keep theirs."""
    return method if method in BOUNDS else f"{method}, {place}"


def _setting(group: RunGroup, method: str) -> str:
    """What concerns the method of the differences that are no part of the problem."""
    own = {
        key.removeprefix(f"method.{method}."): value
        for key, value in group.differences.items()
        if key != "method" and not key.startswith(PROBLEM) and concerns(key, method)
    }
    return setting_words(own)


def _averages(rows: Mapping[Repetition, MethodRow]) -> tuple[tuple[Repetition, float], ...]:
    return tuple(sorted((each, round(row.average, 9)) for each, row in rows.items()))


def _paired(groups: Sequence[RunGroup]) -> PairedMethods | None:
    """All methods of the groups for paired tests; ``None`` if not all runs have outcomes."""
    members = [
        renamed(run, str(place)) for place, group in enumerate(groups) for run in group.members
    ]
    found = by_test_images(members)
    whole = len(found) == 1 and len(found[0].members) == len(members)
    return found[0] if whole else None


def _place(
    rival: _Rival, rank: int, tests: PairedMethods | None = None, first: _Rival | None = None
) -> Place:
    row = next(iter(rival.rows.values()))
    normalised = [each.normalised_average for each in rival.rows.values()]
    known = [value for value in normalised if value is not None]
    pair = tests.pair(rival.name, first.name) if tests and first and first != rival else None
    return Place(
        method=rival.method,
        title=method_title(rival.method, row.title),
        setting=rival.setting,
        rank=rank,
        average=rival.average,
        normalised=fmean(known) if len(known) == len(normalised) else None,
        accuracy={
            task: _mean({each: own.accuracy[task] for each, own in rival.rows.items()})
            for task in row.accuracy
        },
        repeated=_repeated(rival.rows),
        interval=None if tests is None else tests.interval(rival.name),
        behind=0.0 if first is None else rival.average - first.average,
        gap=None if pair is None else pair.interval,
    )


def _mean(values: Mapping[Repetition, float]) -> float:
    return spread(values).mean


def _repeated(rows: Mapping[Repetition, MethodRow]) -> str:
    seeds = seeds_by_zoo(rows)
    zoos = f"{len(seeds)} zoos × " if len(seeds) > 1 else ""
    return f"{zoos}{span(seeds.values())} seed{'s' if max(seeds.values()) > 1 else ''}"
