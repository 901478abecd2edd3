"""The accuracy table of a run, or of runs that differ in nothing but their seed."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from statsmerging.report.groups import RunGroup, rows_by_method, setting_text
from statsmerging.report.pairs import PairedMethods
from statsmerging.report.tables.content import (
    BEST,
    Number,
    Row,
    Section,
    Table,
    numbers_over_seeds,
    with_places,
)
from statsmerging.runs.published import (
    SOURCES,
    PublishedRow,
    published_ablation,
    published_rows,
    published_tasks,
)
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

CAPTION = "top-1 accuracy on test images, %; agreement: with the teachers, on the learning images"

LEVEL_METHODS = (
    "average: bold are all methods that are not significantly below the best (the 95 % interval of "
    "the difference, by a paired bootstrap over test images, includes zero)"
)

#: Name of no corruption; titles leave it out.
CLEAN = "none"

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
UNSEEN_AVERAGE = Column("unseen average", lambda row: row.unseen.average)


def group_content(group: RunGroup) -> Table:
    """The accuracy table of a group of runs.

    Where the outcomes on the single test images are known, the averages of all methods that are not
    significantly below the best of their section are marked as the best.
    """
    table = accuracy_content(group.results, group.setting, group_facts(group))
    return table if group.paired is None else _with_level(table, group.paired)


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
        runs: results of one setting; several seeds give mean ± standard deviation.
        setting: ``key=value`` of the differences from other settings, for the title.
        facts: ``group_facts`` of the runs; without them no published rows are shown.
    """
    facts = _facts(runs[0]) if facts is None else facts
    columns = accuracy_columns(runs[0])
    sections = _sections(runs, columns, facts, {_key(item) for item in setting})
    published = _published(runs[0], facts)
    parts = [caption(runs, facts.get("checkpoints"))]
    if published:
        rows = _published_rows(runs[0], published, [column.heading for column in columns], facts)
        sections.append(Section("Published", rows))
        sources = "; ".join(dict.fromkeys(SOURCES[row.source] for row in published))
        parts.append(f"published: {sources}; averages of the cells where there are cells")
    return Table(
        title=_title(runs, setting),
        caption="; ".join(parts),
        labels=("method", "needs"),
        columns=tuple(column.heading for column in columns),
        sections=sections,
    )


def accuracy_columns(results: RunResults) -> list[Column]:
    """All columns for which the rows of a run have numbers."""
    row = next(iter(results.methods.values()))

    def seen(task: str) -> Column:
        # A task may have the name of another column.
        taken = task in ("average", "normalised", "agreement")
        taken = taken or task.startswith(("unseen: ", "task: "))
        return Column(f"task: {task}" if taken else task, lambda row: row.accuracy.get(task))

    def unseen(task: str) -> Column:
        return Column(f"unseen: {task}", lambda row: row.unseen.accuracy.get(task))

    columns = [*map(seen, row.accuracy), AVERAGE, NORMALISED]
    if any(other.teacher_agreement is not None for other in results.methods.values()):
        columns.append(AGREEMENT)
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
    runs: Sequence[RunResults],
    columns: Sequence[Column],
    facts: Mapping[str, Any],
    differences: Container[str],
) -> list[Section]:
    """The rows of the runs; best and second best are marked within each section."""
    rows_of = {name: list(rows.values()) for name, rows in rows_by_method(runs).items()}
    seeds = len(seeds_of(runs))

    def table_row(method: str) -> Row:
        rows = rows_of[method]
        title = method_title(method, rows[0].title)
        if 1 < len(rows) < seeds:  # its ± is over fewer seeds than that of other rows
            title = f"{title} ({len(rows)} of {seeds} seeds)"
        needs = NEEDS.get(rows[0].needs, str(rows[0].needs))  # a plugin may have other needs
        numbers = numbers_over_seeds([[column.number(row) for row in rows] for column in columns])
        return Row((title, needs), numbers, row_facts(facts, method, rows[0], differences))

    sections = []
    for heading, names in sections_of({name: rows[0] for name, rows in rows_of.items()}):
        rows = [table_row(name) for name in names]
        sections.append(Section(heading, rows if names[0] in BOUNDS else with_places(rows)))
    return sections


def _with_level(table: Table, paired: PairedMethods) -> Table:
    """The table with the averages of equally good methods marked, and a line that explains it."""
    column = table.columns.index(AVERAGE.heading)
    sections, marked = [], False
    for section in table.sections:
        ours = [row.facts["method"] for row in section.rows if row.facts["source"] == "ours"]
        rivals = [name for name in ours if name in paired.rows and name not in BOUNDS]
        level = paired.level(rivals) if len(rivals) > 1 else set()
        rows = [
            _as_best(row, column) if row.facts["method"] in level else row for row in section.rows
        ]
        sections.append(Section(section.heading, rows))
        marked = marked or bool(level)
    caption = f"{table.caption}; {LEVEL_METHODS}" if marked else table.caption
    return replace(table, sections=sections, caption=caption)


def _as_best(row: Row, column: int) -> Row:
    numbers = [
        replace(number, place=BEST) if number is not None and place == column else number
        for place, number in enumerate(row.numbers)
    ]
    return replace(row, numbers=tuple(numbers))


def _published(results: RunResults, facts: Mapping[str, Any]) -> list[PublishedRow]:
    """What was published for the same tasks and checkpoints on clean images."""
    if results.corruption not in ("", CLEAN):
        return []
    family, backbone = str(facts.get("checkpoints")), results.backbone
    row = next(iter(results.methods.values()))
    seen, unseen = set(row.accuracy), set(row.unseen.accuracy)
    if seen | unseen == published_tasks():
        return published_rows(family, backbone, unseen)
    labels = published_ablation(family, backbone, "labels")
    return [other for other in labels if other.accuracy.keys() == seen and not unseen]


def _published_rows(
    results: RunResults,
    published: Sequence[PublishedRow],
    headings: Sequence[str],
    facts: Mapping[str, Any],
) -> list[Row]:
    """Published rows as rows of our table, with averages of their cells; never ranked."""
    first = next(iter(results.methods.values()))
    seen, unseen = list(first.accuracy), list(first.unseen.accuracy)
    family = facts["checkpoints"]
    # Sources do not agree on the individual models, so each is normalised by its own.
    individual = {row.source: row.accuracy for row in published if row.method == "individual"}
    rows = []
    for row in published:
        cells = {task: row.accuracy[task] for task in seen if task in row.accuracy}
        cells |= {f"unseen: {task}": row.accuracy[task] for task in unseen if task in row.accuracy}
        average = row.mean(seen)
        if average is not None:
            cells["average"] = average
        bound = individual.get(row.source, individual.get(family, {}))
        if cells.keys() & bound.keys() >= set(seen):
            cells["normalised"] = fmean(100 * cells[task] / bound[task] for task in seen)
        # A row of another source is named with it: the family's own may have the same method.
        title, method = f"{method_title(row.method)}, published", row.method
        if row.source != family:
            title, method = f"{title} by {row.source}", f"{method}, {row.source}"
        numbers = [Number(cells[name], seeds=0) if name in cells else None for name in headings]
        identity = {**facts, "method": method, "source": "published"}
        rows.append(Row((title, ""), tuple(numbers), identity))
    return rows


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


def _title(runs: Sequence[RunResults], setting: Sequence[str]) -> str:
    """Facts, differences, seeds, and the stamps of all runs, each once."""
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
    seeds = ", ".join(map(str, seeds_of(runs)))
    stamps = dict.fromkeys(stamp for run in runs for stamp in run.stamps)
    return " · ".join([*shown, *own, f"seed {seeds}", *stamps])


def caption(runs: Sequence[RunResults], family: str | None) -> str:
    """The meaning of the numbers, and the accuracy of the teachers' labels on learning images."""
    parts = [CAPTION] if family is None else [CAPTION, f"checkpoints: {family}"]
    if len(seeds_of(runs)) > 1:
        parts.append("a row without ± ran with one seed or draws nothing at random")
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


def seeds_of(runs: Sequence[RunResults]) -> list[int]:
    """All seeds, in order."""
    return sorted({run.seed for run in runs})
