"""The accuracy table of a run, or of runs that repeat it with other seeds and experts."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from statsmerging.report.groups import RunGroup, setting_text
from statsmerging.report.pairs import FEW_ZOOS, NARROW, PairedMethods
from statsmerging.report.repetitions import (
    RepeatedRun,
    Repetition,
    in_order,
    rows_by_method,
    share_of,
)
from statsmerging.report.tables.content import (
    BEST,
    PERCENT,
    Number,
    Row,
    Section,
    Table,
    Unit,
    deviation_caption,
    numbers_over_repetitions,
    with_places,
)
from statsmerging.report.tables.published import CLEAN, published_for, published_table_rows
from statsmerging.runs.published import SOURCES
from statsmerging.runs.results import BOUNDS, MethodRow, RunResults, method_title

#: Short forms of the needs of a method besides the weights.
NEEDS = {
    None: "",
    "nothing": "–",
    "unlabeled images": "images",
    "labels": "labels",
    "activations": "activations",
    "gradients": "gradients",
}

CAPTION = "top-1 accuracy on test images, %"
AGREEMENT_ON = "agreement: with the teachers, on {images}"
HELD_OUT = "unlabeled images held out of learning"
LEARNED_FROM = "the images that are learned from, which prefers what learned them by heart"
ORACLE_IS = (
    "oracle: the best test average of the grid of a tuned row, found with the labels of the test "
    "images, to tell what the label-free rule loses"
)

#: Running statistics of a row → their description in a caption.
STATISTICS = {
    "averaged": "averaged over the experts",
    "pooled": "measured on learning images of all tasks together",
    "per_task": "measured on learning images of each task alone",
}

LEVEL_METHODS = (
    "average: bold are all methods that are not significantly below the best (the 95 % interval of "
    "the difference, by a paired bootstrap over {resampled}, includes zero)"
)

FEWER_ZOOS = "a method that ran with fewer zoos takes no part in the ranking"

#: Entries of the results that describe the setting, in the order of a title.
FACTS = ("suite", "corruption", "backbone", "granularity", "learner", "labels")

#: Those of them that a learned method may have of its own.
OF_METHODS = ("granularity", "learner")


class Column(NamedTuple):
    """Heading of a column, and how its number, a fraction, is read from a row of the results."""

    heading: str
    number: Callable[[MethodRow], float | None]


AVERAGE = Column("average", lambda row: row.average)
NORMALISED = Column("normalised", lambda row: row.normalised_average)
AGREEMENT = Column("agreement", lambda row: row.teacher_agreement)
ORACLE = Column("oracle", lambda row: None if row.choice is None else row.choice.oracle)
UNSEEN_AVERAGE = Column("unseen average", lambda row: row.unseen.average)


def group_content(group: RunGroup) -> Table:
    """The accuracy table of a group of runs.

    Where the outcomes on the single test images are known, the averages of all methods that are not
    significantly below the best of their section are marked as the best.
    """
    table = _content(group.repeated, group.setting, group_facts(group))
    if group.paired is None:
        return table
    return _with_level(table, group.paired, _with_all_zoos(group.repeated))


def group_facts(group: RunGroup) -> dict[str, Any]:
    """Setting, checkpoints and differences of a group; they identify its numbers in a CSV file."""
    checkpoints = group.config.get("zoo", {}).get("kind")
    return {**_facts(group.results[0]), "checkpoints": checkpoints, **group.differences}


def row_facts(
    facts: Mapping[str, Any], method: str, row: MethodRow, differences: Container[str]
) -> dict[str, Any]:
    """Facts of one row: a method's own granularity and learner in place of those of the setting.

    Args:
        facts: of the setting.
        differences: keys that tell settings apart; they stay those of the setting.
    """
    own = {
        key: setting_text(row.parameters[key])
        for key in OF_METHODS
        if key in facts and key in row.parameters and key not in differences
    }
    return {**facts, **own, "method": method, "source": "ours"}


def accuracy_content(
    runs: Sequence[RunResults],
    setting: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Table:
    """One row per method; columns for tasks, averages and, on the right, unseen tasks.

    Bounds come first, then static models, then models that are not static, then published rows for
    the same tasks and checkpoints.

    Args:
        runs: results of one setting with one zoo; several seeds give mean ± standard deviation.
        setting: ``key=value`` of the differences from other settings, for the title.
        facts: ``group_facts`` of the runs; without them no published rows are shown.
    """
    facts = _facts(runs[0]) if facts is None else facts
    return _content([RepeatedRun(run) for run in runs], setting, facts)


def _content(
    repeated: Sequence[RepeatedRun], setting: Sequence[str], facts: Mapping[str, Any]
) -> Table:
    """The table of ``accuracy_content`` over seeds and zoos."""
    runs = [run.results for run in repeated]
    columns = accuracy_columns(runs[0])
    sections = _sections(repeated, columns, facts, {_key(item) for item in setting})
    published = published_for(runs[0], facts)
    parts = [caption(runs, sections, facts.get("checkpoints"))]
    if len(_with_all_zoos(repeated)) < len(rows_by_method(repeated)):
        parts.append(FEWER_ZOOS)
    if published:
        rows = published_table_rows(
            runs[0], published, [column.heading for column in columns], facts
        )
        sections.append(Section("Published", rows))
        sources = "; ".join(dict.fromkeys(SOURCES[row.source] for row in published))
        parts.append(f"published: {sources}; averages of the cells where there are cells")
    return Table(
        title=_title(repeated, setting),
        caption="; ".join(parts),
        labels=("method", "needs"),
        columns=tuple(column.heading for column in columns),
        sections=sections,
        tasks=tuple(column.heading for column in columns[: columns.index(AVERAGE)]),
        extras=("needs", *(each.heading for each in columns if each.heading[:7] == "unseen:")),
    )


def accuracy_columns(results: RunResults) -> list[Column]:
    """All columns for which the rows of a run have numbers."""
    row = next(iter(results.methods.values()))

    def seen(task: str) -> Column:
        # A task may have the name of another column.
        taken = task in ("average", "normalised", "agreement", "oracle")
        taken = taken or task.startswith(("unseen: ", "task: "))
        return Column(f"task: {task}" if taken else task, lambda row: row.accuracy.get(task))

    def unseen(task: str) -> Column:
        return Column(f"unseen: {task}", lambda row: row.unseen.accuracy.get(task))

    columns = [*map(seen, row.accuracy), AVERAGE, NORMALISED]
    if any(other.teacher_agreement is not None for other in results.methods.values()):
        columns.append(AGREEMENT)
    if any(ORACLE.number(other) is not None for other in results.methods.values()):
        columns.append(ORACLE)
    columns += map(unseen, row.unseen.accuracy)
    if len(row.unseen.accuracy) > 1:
        columns.append(Column("unseen: average", UNSEEN_AVERAGE.number))
    return columns


def sections_of(methods: Mapping[str, MethodRow]) -> list[tuple[str, list[str]]]:
    """Headings and names of the methods below them: bounds, static models, others."""
    merged = [name for name in methods if name not in BOUNDS]
    static = [name for name in merged if methods[name].is_static]
    others = [name for name in merged if name not in static]
    sections = [
        ("", [name for name in methods if name in BOUNDS]),
        ("One static model" if others else "", static),
        ("Not one static model", others),
    ]
    return [(heading, names) for heading, names in sections if names]


def _sections(
    runs: Sequence[RepeatedRun],
    columns: Sequence[Column],
    facts: Mapping[str, Any],
    differences: Container[str],
) -> list[Section]:
    """The rows of the runs; best and second best are marked within each section."""
    rows_of = rows_by_method(runs)
    first = {name: next(iter(rows.values())) for name, rows in rows_of.items()}
    every = {run.repetition for run in runs}
    whole = _with_all_zoos(runs)

    def table_row(method: str) -> Row:
        title = method_title(method, first[method].title)
        if missing := share_of(rows_of[method], every):  # its numbers are over fewer repetitions
            title = f"{title} ({missing})"
        needs = NEEDS.get(first[method].needs, str(first[method].needs))  # plugins have others
        numbers = method_numbers(rows_of[method], columns)
        return Row((title, needs), numbers, row_facts(facts, method, first[method], differences))

    sections = []
    for heading, names in sections_of(first):
        # Numbers of other experts are no rivals, and bounds are none at all.
        contests = [True if name in whole and name not in BOUNDS else None for name in names]
        rows = with_places([table_row(name) for name in names], contests)
        sections.append(Section(heading, rows))
    return sections


def method_numbers(
    rows: Mapping[Repetition, MethodRow], columns: Sequence[Column], unit: Unit = PERCENT
) -> tuple[Number | None, ...]:
    """The numbers of a method over its repetitions, one per column."""
    cells = [{each: column.number(row) for each, row in rows.items()} for column in columns]
    return numbers_over_repetitions(cells, unit)


def _with_all_zoos(runs: Sequence[RepeatedRun]) -> set[str]:
    """Methods that were run with every zoo of the setting."""
    zoos = {run.zoo for run in runs}
    rows = rows_by_method(runs)
    return {name for name, own in rows.items() if {each.zoo for each in own} == zoos}


def _with_level(table: Table, paired: PairedMethods, whole: Container[str]) -> Table:
    """The table with the averages of equally good methods marked, and a line that explains it.

    Args:
        table: of a group of runs.
        paired: its methods.
        whole: those that may be compared.
    """
    column = table.columns.index(AVERAGE.heading)
    sections, marked = [], False
    for section in table.sections:
        ours = [row.facts["method"] for row in section.rows if row.facts["source"] == "ours"]
        rivals = [
            name for name in ours if name in whole and name in paired.rows and name not in BOUNDS
        ]
        level = paired.level(rivals) if len(rivals) > 1 else set()
        rows = [
            _as_best(row, column) if row.facts["method"] in level else row for row in section.rows
        ]
        sections.append(Section(section.heading, rows))
        marked = marked or bool(level)
    if not marked:
        return replace(table, sections=sections)
    resampled = "test images and zoos" if paired.zoos > 1 else "test images"
    parts = [table.caption, LEVEL_METHODS.format(resampled=resampled)]
    if 1 < paired.zoos < FEW_ZOOS:
        parts.append(NARROW)
    return replace(table, sections=sections, caption="; ".join(parts))


def _as_best(row: Row, column: int) -> Row:
    numbers = [
        replace(number, place=BEST) if number is not None and place == column else number
        for place, number in enumerate(row.numbers)
    ]
    return replace(row, numbers=tuple(numbers))


def _facts(results: RunResults) -> dict[str, Any]:
    return {key: getattr(results, key) for key in FACTS if key in results.model_fields_set}


def _of_methods(runs: Sequence[RunResults], facts: Mapping[str, Any]) -> dict[str, str]:
    """Granularities of all learned methods; the learner, if no method has that of the setting.

    Controls have other learners, and their titles tell which.
    """
    parameters = [row.parameters for run in runs for row in run.methods.values()]
    found = {}
    for key in OF_METHODS:
        own = dict.fromkeys(setting_text(each[key]) for each in parameters if key in each)
        if own and key in facts and not (key == "learner" and facts[key] in own):
            found[key] = ", ".join(own)
    return found


def _key(item: str) -> str:
    """Key of ``key=value``."""
    return item.partition("=")[0]


def _title(repeated: Sequence[RepeatedRun], setting: Sequence[str]) -> str:
    """Facts, differences, zoos, seeds, and the stamps of all runs, each once."""
    runs = [run.results for run in repeated]
    facts = _facts(runs[0])
    facts |= _of_methods(runs, facts)
    keys = {_key(item).removesuffix(".kind") for item in setting} - {"corruption"}
    shown = [value for key, value in facts.items() if key not in keys and value != CLEAN]

    # "contrast 2" already tells the difference "corruption.severity=2".
    corruption = runs[0].corruption.replace(",", "").split()

    def is_shown(item: str) -> bool:
        key, _, value = item.partition("=")
        clean = corruption in ([], [CLEAN])
        return not clean and key.startswith("corruption.") and value in corruption

    own = [item for item in setting if not is_shown(item)]
    zoos = in_order({run.zoo for run in repeated} - {""})
    own += [f"zoo {', '.join(zoos)}"] if zoos else []
    seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
    stamps = dict.fromkeys(stamp for run in runs for stamp in run.stamps)
    return " · ".join([*shown, *own, f"seed {seeds}", *stamps])


def caption(runs: Sequence[RunResults], sections: Iterable[Section], family: str | None) -> str:
    """The meaning of the numbers, and the accuracy of the teachers' labels on learning images.

    Args:
        runs: all runs of the table.
        sections: its rows, from which it is told what deviations are over.
        family: of the experts.
    """
    images = HELD_OUT if all(run.held_out for run in runs) else LEARNED_FROM
    parts = [CAPTION, AGREEMENT_ON.format(images=images)]
    rows = [row for run in runs for row in run.methods.values()]
    if any(ORACLE.number(row) is not None for row in rows):
        parts.append(ORACLE_IS)
    parts += _running_statistics(runs)
    if family is not None:
        parts.append(f"checkpoints: {family}")
    if deviations := deviation_caption(row for section in sections for row in section.rows):
        parts.append(deviations)
    shares = [
        teacher.label_agreement
        for run in runs
        for teacher in run.teachers.values()
        if teacher.label_agreement is not None
    ]
    if shares:
        parts.append(
            f"the teachers' labels are right on {fmean(shares):.1%} of the learning images"
        )
    return "; ".join(parts)


def _running_statistics(runs: Sequence[RunResults]) -> list[str]:
    """Where the running statistics of the rows are from; empty unless they tell it.

    With several kinds each is followed by its rows; one that differs between runs is in both.
    """
    rows: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, row in run.methods.items():
            if row.running_statistics in STATISTICS:
                title = method_title(name, row.title)
                rows.setdefault(STATISTICS[row.running_statistics], {})[title] = None
    if not rows:
        return []
    told = [
        f"{kind} ({' · '.join(titles)})" if len(rows) > 1 else kind for kind, titles in rows.items()
    ]
    return [f"running statistics of batch normalisation: {' or '.join(told)}"]
