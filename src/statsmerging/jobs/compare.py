"""``job=compare``: methods of many finished runs in pairs, on the same test images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from statsmerging.choices import ComparedTasks
from statsmerging.errors import UserError
from statsmerging.progress import track
from statsmerging.report.across import Rivals, across
from statsmerging.report.files import file_names, sender_lines
from statsmerging.report.groups import RunGroup, runs_by_setting
from statsmerging.report.pairs import PairedMethods, by_test_images
from statsmerging.report.runs import name_runs, unfinished_runs
from statsmerging.report.tables.beside import beside_table
from statsmerging.report.tables.content import Table
from statsmerging.report.tables.latex import latex
from statsmerging.report.tables.pairs import (
    ComparedSetting,
    pair_frame,
    pair_sections,
    pair_table,
    variant_sections,
)
from statsmerging.report.tables.terminal import print_table
from statsmerging.report.tables.text import markdown, spreadsheet_safe
from statsmerging.store.written_files import WrittenFiles

if TYPE_CHECKING:
    from statsmerging.app.config import JobSettings
    from statsmerging.app.run import Run

log = logging.getLogger(__name__)

#: Names the files of a comparison, with their hashes.
RECORD = ".comparison.json"

TEXT, LATEX, NUMBERS = "comparison.md", "comparison.tex", "comparison.csv"


def compare(run: Run) -> None:
    """Compare what the config asks for; the files are written to the run directory."""
    compare_runs(run.config.job, run.directory.path)


def compare_runs(job: JobSettings, folder: Path) -> None:
    """Print the tables of each setting, and write all to ``comparison.md``, ``.tex`` and ``.csv``.

    Args:
        job: which runs and pairs.
        folder: of the files.

    Raises:
        UserError: no runs, no outcomes in them, fewer than two methods, or no such method.
    """
    if job.runs is None:
        raise UserError("job.runs: a folder with run directories, or a bundle, is needed")
    files = WrittenFiles(folder, RECORD, [TEXT, LATEX, NUMBERS])
    groups = runs_by_setting(job.runs)
    name_runs("unfinished run(s) left out", unfinished_runs(job.runs))
    comparable = list(_comparable(_rivals(job, groups), job.tasks))
    if not comparable:
        raise UserError(
            f"job.runs={job.runs}: no run there has outcomes.safetensors, right or wrong for each "
            "test image; the same commands with rerun=true write it"
        )
    _check_names(job, [each.methods for each in comparable])
    settings = [
        setting
        for each in track(comparable, "comparing methods")
        if (setting := _compared(job, each)) is not None
    ]
    if not settings:
        raise UserError(
            f"job.runs={job.runs}: no setting there has two methods to compare"
            if job.across is None
            else f"job.across={job.across}: all methods are the same on every image with each value"
        )

    tables = [table for setting in settings for table in _tables(setting, job.against)]
    for table in tables:
        print_table(table, str(folder / TEXT))
    files.write_text(TEXT, "\n".join([*sender_lines(groups), *map(markdown, tables)]))
    names = file_names([f"comparison {table.title}" for table in tables])
    files.write_text(LATEX, "\n".join(map(latex, tables, names)))
    with files.writing(NUMBERS) as partial:
        spreadsheet_safe(pair_frame(settings)).to_csv(partial, index=False)
    log.info("comparison: %s", folder / TEXT)


def _tables(setting: ComparedSetting, against: str | None) -> Iterator[Table]:
    """The pairs and, if one method is compared with all others, that method beside them."""
    yield pair_table(setting)
    if against in setting.methods.rows:
        yield beside_table(setting, against)


class _Comparable(NamedTuple):
    """Methods with the same test images.

    Attributes:
        rivals: those of one setting, or variants of methods in several.
        title: of the setting.
        methods: all of them.
    """

    rivals: Rivals
    title: str
    methods: PairedMethods


def _rivals(job: JobSettings, groups: Sequence[RunGroup]) -> list[Rivals]:
    """The settings, or those that differ in one key put together.

    Raises:
        UserError: a key in which no two settings differ, or that is asked for besides pairs.
    """
    if job.across is None:
        return [Rivals(group, {}) for group in groups]
    if job.against is not None or job.pairs:
        raise UserError("job.across goes without job.against and job.pairs")
    return across(groups, job.across)


def _comparable(found: Sequence[Rivals], of: ComparedTasks) -> Iterator[_Comparable]:
    """What can be paired; warns of runs that cannot."""
    without = []
    for rivals in found:
        group = rivals.group
        alike = by_test_images(group.members, of)
        paired = {id(run) for methods in alike for run in methods.members}
        without += [str(run.path) for run in group.members if id(run) not in paired]
        if len(alike) > 1:
            log.warning(
                "%s: runs with %d different sets of test images, not paired with each other",
                group.label,
                len(alike),
            )
        for number, methods in enumerate(alike, start=1):
            which = f" · test images {number} of {len(alike)}" if len(alike) > 1 else ""
            unseen = " · unseen tasks" if of == "unseen" else ""
            yield _Comparable(rivals, f"{group.label}{which}{unseen}", methods)
    name_runs("run(s) without outcomes of these tasks in outcomes.safetensors left out", without)


def _check_names(job: JobSettings, settings: Sequence[PairedMethods]) -> None:
    """Refuse names that no setting has.

    Raises:
        UserError: names the key, and the methods there are.
    """
    known = list(dict.fromkeys(name for methods in settings for name in methods.rows))
    asked = {"job.against": [job.against] if job.against else []}
    asked["job.pairs"] = [name for pair in job.pairs for name in pair]
    for key, names in asked.items():
        for name in names:
            if name not in known:
                raise UserError(f"{key}: no run has method {name}; choose of {', '.join(known)}")


def _compared(job: JobSettings, comparable: _Comparable) -> ComparedSetting | None:
    """The comparisons of one setting; ``None``, with a warning, if there are none."""
    rivals, title, methods = comparable
    asked = dict.fromkeys(name for pair in job.pairs for name in pair)
    lacking = [name for name in (job.against, *asked) if name and name not in methods.rows]
    if lacking:
        log.warning("%s: without %s, which no run of this setting has", title, ", ".join(lacking))
    if job.across is None:
        sections = pair_sections(methods, job.against, job.pairs)
    else:
        sections = variant_sections(methods, rivals.variants)
    for names in dict.fromkeys(names for section in sections for names in section.unpaired):
        log.warning("%s: %s have no experts in common, not paired", title, " and ".join(names))
    if not any(section.pairs for section in sections):
        few = "fewer than two methods" if job.across is None else f"{job.across} changes no image"
        log.warning("%s: %s, nothing to compare", title, few)
        return None
    return ComparedSetting(rivals.group, title, methods, sections)
