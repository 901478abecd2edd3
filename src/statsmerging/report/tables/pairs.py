"""The table of paired comparisons: differences of averages and of tasks, and their support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from statsmerging.report.groups import RunGroup
from statsmerging.report.pairs import FEW_ZOOS, NARROW, Pair, PairedMethods
from statsmerging.report.significance import DRAWS, LEVEL, p_text
from statsmerging.report.tables.accuracy import group_facts, sections_of
from statsmerging.report.tables.content import BEST, Number, Row, Section, Table
from statsmerging.runs.results import BOUNDS, method_title

#: A corrected p-value below it counts as a difference on a task.
ALPHA = 1 - LEVEL

#: Headings of the texts of a row.
LABELS = ("method", "against", "seeds", "zoos", "tasks better, worse", "p over tasks")


@dataclass(frozen=True)
class PairSection:
    """Methods that are compared for one reason.

    Attributes:
        heading: the reason.
        first: the method that all others are compared with; ``None`` if it is not one.
        pairs: the comparisons.
        unpaired: methods of pairs that have no experts in common.
    """

    heading: str
    first: str | None
    pairs: Sequence[Pair]
    unpaired: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class ComparedSetting:
    """One setting, with the comparisons of its methods.

    Attributes:
        group: the runs of the setting.
        title: setting, and what tells it from runs with other test images.
        methods: those that were tested on the same images.
        sections: the comparisons.
    """

    group: RunGroup
    title: str
    methods: PairedMethods
    sections: Sequence[PairSection]


def pair_sections(
    methods: PairedMethods, against: str | None, asked: Sequence[tuple[str, str]]
) -> list[PairSection]:
    """Every merged method against the best of its kind, and what was asked for besides.

    Kinds are those of the accuracy table: one static model, and others. Methods without common
    experts, and those that this setting does not have, are left out.

    Args:
        against: every merged method against this one too; ``None`` asks for no such section.
        asked: pairs of methods.
    """

    sections = []
    for heading, names in sections_of(methods.rows):
        if names[0] not in BOUNDS:
            sections.append(_against_best(methods, heading, names))
    if against in methods.rows:
        rivals = [name for name in methods.rows if name not in (*BOUNDS, against)]
        title = method_title(against, methods.rows[against].title)
        pairs = [(name, against) for name in rivals]
        sections.append(_section(methods, f"Against {title}", against, pairs))
    sections.append(_section(methods, "Pairs asked for", None, asked))
    return [each for each in sections if each.first or each.pairs or each.unpaired]


def variant_sections(
    methods: PairedMethods, variants: Mapping[str, Sequence[str]]
) -> list[PairSection]:
    """Every method's variants against the best of them, where they differ on any image.

    Args:
        variants: title of the method → their names.
    """
    known = {
        title: [name for name in names if name in methods.rows] for title, names in variants.items()
    }
    sections = [_against_best(methods, title, names) for title, names in known.items() if names]
    return [section for section in sections if any(map(_differs, section.pairs))]


def _differs(pair: Pair) -> bool:
    return any(task.better or task.worse for task in pair.tasks.values())


def _against_best(methods: PairedMethods, heading: str, names: Sequence[str]) -> PairSection:
    best = methods.best(names)
    ranked = sorted(names, key=methods.average, reverse=True)
    return _section(methods, heading, best, [(name, best) for name in ranked if name != best])


def _section(
    methods: PairedMethods, heading: str, first: str | None, pairs: Sequence[tuple[str, str]]
) -> PairSection:
    """The comparisons of those pairs that this setting has."""
    known = [names for names in pairs if methods.rows.keys() >= set(names)]
    found = {names: methods.pair(*names) for names in known}
    compared = [pair for pair in found.values() if pair is not None]
    unpaired = [names for names, pair in found.items() if pair is None]
    return PairSection(heading, first, compared, unpaired)


def pair_table(setting: ComparedSetting) -> Table:
    """The comparisons of a setting; bold averages are not significantly below the first."""
    methods = setting.methods
    seeds = max((max(pair.seeds) for pair in _pairs(setting)), default=methods.seeds)
    return Table(
        title=" · ".join([setting.title, *setting.group.stamps]),
        caption=_caption(methods, seeds),
        labels=LABELS,
        columns=("average", "difference", *(f"on {task}" for task in methods.tasks)),
        sections=[Section(each.heading, _rows(methods, each)) for each in setting.sections],
        ranked=False,
        tasks=tuple(f"on {task}" for task in methods.tasks),
    )


def pair_frame(settings: Sequence[ComparedSetting]) -> pd.DataFrame:
    """All comparisons, one a row and one for each task; differences in percentage points.

    Columns: the setting, ``method``, ``against``, ``task`` (empty: the average), ``difference``,
    ``low`` and ``high`` (ends of the interval), ``better`` and ``worse`` (numbers of images), ``p``
    (McNemar's; of the average Wilcoxon's), ``p_holm``, ``images``, ``seeds``, ``seeds_against``,
    ``zoos``.
    """
    frame = pd.DataFrame([row for setting in settings for row in _records(setting)])
    return frame.astype({"better": "Int64", "worse": "Int64"})


def _pairs(setting: ComparedSetting) -> list[Pair]:
    """The pairs of all sections, each once."""
    pairs = [pair for section in setting.sections for pair in section.pairs]
    return list({(pair.method, pair.against): pair for pair in pairs}.values())


def _records(setting: ComparedSetting) -> Iterator[dict[str, Any]]:
    for pair in _pairs(setting):
        about = {
            **group_facts(setting.group),
            "setting": setting.title,
            "method": pair.method,
            "against": pair.against,
        }
        varied = {"seeds": pair.seeds[0], "seeds_against": pair.seeds[1], "zoos": pair.zoos}
        low, high = pair.interval
        yield {
            **about,
            "task": "",
            "difference": 100 * pair.difference,
            "low": 100 * low,
            "high": 100 * high,
            "better": None,
            "worse": None,
            "p": pair.p,
            "p_holm": None,
            "images": sum(task.images for task in pair.tasks.values()),
            **varied,
        }
        for name, task in pair.tasks.items():
            yield {
                **about,
                "task": name,
                "difference": 100 * task.difference,
                "low": None,
                "high": None,
                "better": task.better,
                "worse": task.worse,
                "p": task.p,
                "p_holm": task.corrected,
                "images": task.images,
                **varied,
            }


def _rows(methods: PairedMethods, section: PairSection) -> list[Row]:
    """One for each pair; the first method of the section has a row of its own."""
    level = {pair.method for pair in section.pairs if not pair.below} | {section.first}
    rows = [_row(methods, pair, bold=pair.method in level) for pair in section.pairs]
    if section.first is None:
        return rows
    average = Number(100 * methods.average(section.first), place=BEST)
    gaps = [None] * (1 + len(methods.tasks))
    texts = [_title(methods, section.first), *[""] * (len(LABELS) - 1)]
    return [Row(tuple(texts), (average, *gaps)), *rows]


def _row(methods: PairedMethods, pair: Pair, *, bold: bool) -> Row:
    told = [task for task in pair.tasks.values() if task.corrected < ALPHA]
    better = sum(task.difference > 0 for task in told)
    low, high = pair.interval
    labels = (
        _title(methods, pair.method),
        _title(methods, pair.against),
        " : ".join(map(str, pair.seeds)),
        str(pair.zoos),
        f"{better}, {len(told) - better}",
        p_text(pair.p),
    )
    numbers = (
        Number(100 * methods.average(pair.method), place=BEST if bold else 0),
        Number(100 * pair.difference, interval=(100 * low, 100 * high)),
        *(
            Number(100 * task.difference, place=BEST if task in told else 0, signed=True)
            for task in pair.tasks.values()
        ),
    )
    return Row(labels, numbers)


def _title(methods: PairedMethods, method: str) -> str:
    return method_title(method, methods.rows[method].title)


def what_varies(methods: PairedMethods, seeds: int | None = None) -> str:
    """Test images, seeds and zoos, and how each is treated.

    Args:
        seeds: those of the pairs that are shown; by default all.
    """
    images, zoos = sum(methods.tasks.values()), methods.zoos
    seeds = methods.seeds if seeds is None else seeds
    of_zoos = f"{zoos} zoos, resampled" if zoos > 1 else "1 zoo, fixed"
    narrow = f"; {NARROW}" if 1 < zoos < FEW_ZOOS else ""
    return (
        f"{images:,} test images, resampled within tasks; {seeds} seed(s), averaged for each "
        f"image; {of_zoos}{narrow}"
    )


def _caption(methods: PairedMethods, seeds: int) -> str:
    return (
        f"average: top-1 accuracy over {len(methods.tasks)} tasks, %; differences in points, with "
        f"the {LEVEL:.0%} interval of a paired bootstrap ({DRAWS:,} draws); what varies: "
        f"{what_varies(methods, seeds)}; bold average: not significantly below the first "
        "(the interval of its difference is not below zero); bold on a task: McNemar's exact "
        "test, corrected by Holm over the tasks, p < 0.05; p over tasks: Wilcoxon's signed-rank "
        "test; no correction for the number of methods"
    )
