"""``job=bundle``: the results of many finished runs in one file, to send to others."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from statsmerging.errors import UserError
from statsmerging.report.files import markdown_page, report_tables
from statsmerging.report.groups import by_setting
from statsmerging.report.runs import finished_runs, name_runs, read_run, unfinished_runs
from statsmerging.runs.bundled import write_bundled
from statsmerging.runs.bundles import SUFFIX, TABLES_TEXT, write_bundle
from statsmerging.runs.directory import without_presentation
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.manifest import code_version
from statsmerging.store.files import write_text
from statsmerging.store.hashing import file_sha256
from statsmerging.store.personal_paths import HiddenPaths

if TYPE_CHECKING:
    from statsmerging.app.run import Run

log = logging.getLogger(__name__)


def bundle(run: Run) -> None:
    """Write the finished runs below ``job.runs``, without weights and personal paths.

    Raises:
        UserError: no folder, no finished run in it, or a target that is no ``.zip`` or holds
            something else.
    """
    job = run.config.job
    if job.runs is None or not job.runs.is_dir():
        raise UserError("job.runs: a folder with run directories is needed")
    if job.target is None or job.target.suffix != SUFFIX:
        raise UserError(f"job.target={job.target}: a file to write is needed, NAME{SUFFIX}")
    found = list(finished_runs(job.runs))
    name_runs("unfinished run(s) left out", unfinished_runs(job.runs))
    if not found:
        raise UserError(f"job.runs={job.runs} holds no finished run (manifest.json, results.json)")
    hidden = HiddenPaths(without_presentation(each.config) for each in found)
    paths = [each.path for each in found]
    names = run_names(job.runs, paths)
    with TemporaryDirectory(prefix="statsmerging-bundle-") as temporary:
        folders = [Path(temporary, f"{number:06}") for number, _ in enumerate(names)]
        for path, folder in zip(paths, folders, strict=True):
            write_bundled(read_finished_run(path), folder, hidden)
        groups = by_setting([read_run(folder) for folder in folders])
        text = Path(temporary, TABLES_TEXT)
        write_text(text, markdown_page(report_tables(groups), groups, {}))
        files = {TABLES_TEXT: text}
        for name, folder in zip(names, folders, strict=True):
            for file in sorted(file for file in folder.rglob("*") if file.is_file()):
                files[f"{name}/{file.relative_to(folder).as_posix()}"] = file
        write_bundle(job.target, files, job.by, code_version())
    size, sha256 = job.target.stat().st_size, file_sha256(job.target)
    log.info("bundle of %d run(s), %d bytes: %s", len(names), size, job.target)
    log.info("its sha256, for the one who gets it: %s", sha256)
    if job.by is None:
        log.info("it does not say whose runs these are: job.by=NAME does")


def run_names(folder: Path, runs: Sequence[Path]) -> list[str]:
    """Distinct names of run directories as seen from a folder, of plain letters."""
    names: list[str] = []
    for run in runs:
        parts = run.relative_to(folder).parts or (run.absolute().name,)
        plain = [re.sub(r"[^\w.+-]+", "_", part).lstrip("_.+-") or "run" for part in parts]
        name, number = "/".join(plain), 1
        while name in names:
            number += 1
            name = f"{'/'.join(plain)}-{number}"
        names.append(name)
    return names
