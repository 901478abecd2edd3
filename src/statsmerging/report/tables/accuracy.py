"""The accuracy table of a run, or of several that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from statsmerging.report.rows import (
    BOUNDS,
    Results,
    is_static,
    method_title,
    percentage,
    rows_by_method,
)
from statsmerging.report.runs import RunGroup
from statsmerging.report.tables.content import (
    Number,
    Row,
    Section,
    Table,
    numbers_over_seeds,
    with_places,
)
from statsmerging.runs.published import SOURCES, published_rows, published_tasks, published_unseen

#: Short forms of what a method needs besides the weights.
NEEDS = {
    None: "",
    "nothing": "–",
    "unlabeled images": "images",
    "labels": "labels",
    "activations": "activations",
    "gradients": "gradients",
}

CAPTION = "top-1 accuracy on test images, %; agreement: with the teachers, on the learning images"

#: What results of clean images say of their corruption; a title does not.
CLEAN = "none"

#: Entries of ``results.json`` that say what was run.
FACTS = ("suite", "corruption", "backbone", "granularity", "learner", "labels")

#: Headings of the columns that are no task's.
OWN_COLUMNS = ("average", "normalised", "agreement")

#: Heading of a column, and the keys of its number in a row of ``results.json``.
Column = tuple[str, tuple[str, ...]]


def group_content(group: RunGroup) -> Table:
    """The accuracy table of runs on disk, which also tell their checkpoints."""
    return accuracy_content(group.runs, group.setting, group_facts(group))


def group_facts(group: RunGroup) -> dict[str, Any]:
    """What tells the numbers of these runs from those of others, for programs that read them."""
    checkpoints = group.config.get("zoo", {}).get("kind")
    return {**_facts(group.runs[0]), "checkpoints": checkpoints, **group.differences}


def accuracy_content(
    runs: Sequence[Results],
    setting: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
) -> Table:
    """Rows of methods; columns of tasks, averages, and right of them the unseen tasks.

    Bounds come first, then static models, then what is more than one static model, then what
    others published for the same tasks and checkpoints.

    Args:
        runs: contents of ``results.json``; several give mean ± standard deviation.
        setting: ``key=value`` of what tells these runs from others; part of the title.
        facts: those of ``group_facts``, where the runs are on disk.
    """
    facts = _facts(runs[0]) if facts is None else facts
    columns = accuracy_columns(runs[0])
    sections = _sections(runs, [path for _, path in columns], facts)
    published = _published(runs[0], columns, facts)
    parts = [caption(runs, facts.get("checkpoints"))]
    if published:
        sections.append(Section("Published", published))
        source = SOURCES[facts["checkpoints"]]
        parts.append(f"published: {source}, averages of the cells where there are cells")
    return Table(
        title=_title(runs, setting),
        caption="; ".join(parts),
        labels=("method", "needs"),
        columns=tuple(heading for heading, _ in columns),
        sections=sections,
    )


def accuracy_columns(results: Results) -> list[Column]:
    """All columns the rows of a run have numbers for."""
    row = next(iter(results["methods"].values()))
    columns: list[Column] = [(_heading(task), ("accuracy", task)) for task in row["accuracy"]]
    columns += [("average", ("average",)), ("normalised", ("normalised_average",))]
    if any("teacher_agreement" in other for other in results["methods"].values()):
        columns.append(("agreement", ("teacher_agreement",)))
    if "unseen" in row:
        tasks = list(row["unseen"]["accuracy"])
        columns += [(f"unseen: {task}", ("unseen", "accuracy", task)) for task in tasks]
        if len(tasks) > 1:
            columns.append(("unseen: average", ("unseen", "average")))
    return columns


def _heading(task: str) -> str:
    """The task's name, unless another column has it."""
    taken = task in OWN_COLUMNS or task.startswith(("unseen: ", "task: "))
    return f"task: {task}" if taken else task


def sections_of(methods: Mapping[str, Results]) -> list[tuple[str, list[str]]]:
    """Headings and names of the methods below them: bounds, static models, others."""
    merged = [name for name in methods if name not in BOUNDS]
    static = [name for name in merged if is_static(methods[name])]
    others = [name for name in merged if name not in static]
    sections = [
        ("", [name for name in methods if name in BOUNDS]),
        ("One static model" if others else "", static),
        ("Not one static model", others),
    ]
    return [(heading, names) for heading, names in sections if names]


def _sections(
    runs: Sequence[Results], paths: Sequence[tuple[str, ...]], facts: Mapping[str, Any]
) -> list[Section]:
    """What was run; the best of a column is the best of its section."""
    entries = {name: list(rows.values()) for name, rows in rows_by_method(runs).items()}
    seeds = len(seeds_of(runs))

    def row(method: str) -> Row:
        rows = entries[method]
        return Row(
            labels=(_row_title(method, rows, seeds), _needs(rows[0])),
            numbers=numbers_over_seeds([[percentage(row, path) for row in rows] for path in paths]),
            facts={**facts, "method": method, "source": "ours"},
        )

    sections = []
    for heading, names in sections_of({name: rows[0] for name, rows in entries.items()}):
        rows = [row(name) for name in names]
        sections.append(Section(heading, rows if names[0] in BOUNDS else with_places(rows)))
    return sections


def _published(results: Results, columns: Sequence[Column], facts: Mapping[str, Any]) -> list[Row]:
    """What others published for the same tasks and checkpoints, on clean images; never ranked."""
    if results.get("corruption", CLEAN) != CLEAN:
        return []
    family, backbone = str(facts.get("checkpoints")), str(results["backbone"])
    row = next(iter(results["methods"].values()))
    seen, unseen = list(row["accuracy"]), list(row.get("unseen", {}).get("accuracy", {}))
    if set(seen) | set(unseen) != published_tasks():
        return []
    if unseen:
        rows = {
            method: {"average": average} | {f"unseen: {task}": cell for task, cell in cells.items()}
            for method, (average, cells) in published_unseen(family, backbone, unseen).items()
        }
    else:
        rows = _with_averages(published_rows(family, backbone), seen)
    return [
        Row(
            labels=(f"{method_title(method, {})}, published", ""),
            numbers=tuple(
                Number(cells[heading], seeds=0) if heading in cells else None
                for heading, _ in columns
            ),
            facts={**facts, "method": method, "source": "published"},
        )
        for method, cells in rows.items()
    ]


def _with_averages(
    rows: Mapping[str, Mapping[str, float]], tasks: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Averages of the cells, plain and normalised; where only an average is published, that one."""
    individual = rows.get("individual", {})

    def numbers(cells: Mapping[str, float]) -> dict[str, float]:
        if any(task not in cells for task in tasks):
            return dict(cells)
        ratios = [100 * cells[task] / individual[task] for task in tasks if task in individual]
        normalised = {"normalised": fmean(ratios)} if ratios else {}
        return {**cells, "average": fmean(cells[task] for task in tasks), **normalised}

    return {method: numbers(cells) for method, cells in rows.items()}


def _needs(row: Results) -> str:
    """In short; of a plugin's method it may be anything."""
    needs = row.get("needs")
    return NEEDS.get(needs, str(needs))


def _row_title(method: str, rows: Sequence[Results], seeds: int) -> str:
    """The method's title, with the number of seeds where ± stands for some of them only."""
    title = method_title(method, rows[0])
    return f"{title} ({len(rows)} of {seeds} seeds)" if 1 < len(rows) < seeds else title


def _facts(results: Results) -> dict[str, Any]:
    return {key: results[key] for key in FACTS if key in results}


def _title(runs: Sequence[Results], setting: Sequence[str]) -> str:
    """Facts and setting; what both say stands once. A stamp of any run is one of the table."""
    first = runs[0]
    keys = {item.partition("=")[0].removesuffix(".kind") for item in setting} - {"corruption"}
    facts = [first[key] for key in FACTS if key not in keys and first.get(key, CLEAN) != CLEAN]
    corruption = first.get("corruption", CLEAN).replace(",", "").split()
    own = [item for item in setting if not _told(item, corruption)]
    seeds = ", ".join(map(str, seeds_of(runs)))
    stamps = dict.fromkeys(stamp for run in runs for stamp in run["stamps"])
    return " · ".join([*facts, *own, f"seed {seeds}", *stamps])


def _told(item: str, corruption: Sequence[str]) -> bool:
    """Whether the words of a corruption, ``contrast 2``, say what a key of it does."""
    key, _, value = item.partition("=")
    return corruption != [CLEAN] and key.startswith("corruption.") and value in corruption


def caption(runs: Sequence[Results], family: str | None) -> str:
    """What the numbers are, and how good the teachers' labels were where something was learned."""
    parts = [CAPTION] if family is None else [CAPTION, f"checkpoints: {family}"]
    if len(seeds_of(runs)) > 1:
        parts.append("a row without ± ran with one seed or draws nothing at random")
    shares = [
        teacher["label_agreement"]
        for run in runs
        for teacher in run.get("teachers", {}).values()
        if teacher["label_agreement"] is not None
    ]
    if shares:
        parts.append(
            f"the teachers' labels are right on {fmean(shares):.1%} of the learning images"
        )
    return "; ".join(parts)


def seeds_of(runs: Sequence[Results]) -> list[int]:
    """All seeds, in order."""
    return sorted({run["seed"] for run in runs})
