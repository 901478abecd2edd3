"""The page as one text: templates, styles and scripts are files beside this one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from statsmerging.errors import printable
from statsmerging.report.figures.style import Spec
from statsmerging.report.groups import RunGroup
from statsmerging.report.page.answer import answers
from statsmerging.report.page.content import page_content
from statsmerging.report.ranking import contests
from statsmerging.report.warnings import warned
from statsmerging.report.words import counted, title_words
from statsmerging.runs.directory import OUTPUT_FOLDER
from statsmerging.runs.results import BOUNDS

#: In the order in which they stand in the page: later ones use earlier ones.
STYLES = ("page", "tables", "answer", "sections", "runs", "run", "print")
SCRIPTS = (
    "elements",
    "copy",
    "sortable_table",
    "overview",
    "setting_tables",
    "compare",
    "runs",
    "figures",
    "theme",
    "start",
)

#: Scripts of a page that is complete without any.
PLAIN = ("copy", "theme", "start_plain")


def report_page(
    groups: Sequence[RunGroup],
    folder: Path,
    figures: Mapping[str, Spec],
    pages: Mapping[str, str] | None = None,
) -> str:
    """The page of all finished runs below a folder; it loads nothing from anywhere.

    Args:
        groups: the runs.
        folder: from which their directories are named.
        figures: title → chart, of ``style.spec_of``.
        pages: name of a run → address of the page on it alone.
    """
    runs = [run for group in groups for run in group.results]
    specs = [{"title": title_words(title), "spec": spec} for title, spec in figures.items()]
    return rendered(
        "report.html",
        SCRIPTS,
        title=folder_title(folder),
        summary=summary_of(groups),
        stamps=list(dict.fromkeys(stamp for run in runs for stamp in run.stamps)),
        warnings=warned(groups),
        warned_runs=sum(bool(run.warnings) for run in runs),
        runs=len(runs),
        pages=pages or {},
        answer=answers(contests(groups)),
        content=_embedded_json(page_content(groups, folder, pages)),
        figures=_embedded_json(specs),
        vega=_vega() if figures else "",
    )


def folder_title(folder: Path) -> str:
    """The name of a folder of runs: of ``outputs/table1/embedded`` ``table1/embedded``."""
    parts = folder.absolute().parts
    begin = parts.index(OUTPUT_FOLDER) + 1 if OUTPUT_FOLDER in parts[:-1] else -1
    return "/".join(parts[begin:])


def summary_of(groups: Sequence[RunGroup]) -> str:
    """Numbers of runs and methods, and the problems, in a line."""
    runs = [run for group in groups for run in group.repeated]
    methods = {name for run in runs for name in run.results.methods} - set(BOUNDS)
    zoos = len({run.zoo for run in runs})
    problems = dict.fromkeys(f"{run.results.suite} on {run.results.backbone}" for run in runs)
    parts = [
        counted(len(runs), "run"),
        counted(len(methods), "method"),
        counted(len(groups), "setting") if len(groups) > 1 else "",
        counted(zoos, "zoo") if zoos > 1 else "",
        counted(len({run.results.seed for run in runs}), "seed"),
        ", ".join(problems),
    ]
    return " · ".join(filter(None, parts))


def rendered(template: str, scripts: Sequence[str], **values: Any) -> str:
    """A page from its template; every text in the values is escaped.

    Args:
        template: name of the file.
        scripts: those that it needs, in their order.
        values: what its blocks show; the page has a ``title``.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            styles=Markup("\n".join(_file(f"styles/{name}.css") for name in STYLES)),
            scripts=Markup("\n".join(_script(_file(f"scripts/{name}.js")) for name in scripts)),
            **values,
        )
    )


class _Templates(BaseLoader):
    """Templates from the installed package, wherever it lies."""

    def get_source(self, environment: Environment, template: str) -> Any:
        try:
            return _file(f"templates/{template}"), None, lambda: True
        except FileNotFoundError as error:
            raise TemplateNotFound(template) from error


@cache
def _environment() -> Environment:
    def shown(value: Any) -> Any:
        """Control characters and marks that reorder text become codes, before HTML is escaped."""
        plain = isinstance(value, str) and not isinstance(value, Markup)
        return printable(value) if plain else value

    return Environment(
        loader=_Templates(),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, with no name of theirs among the page's."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return Markup(_script(f"(() => {{\n{bundle}\n}})();"))


def _script(code: str) -> str:
    return f"<script>\n{code}\n</script>"


def _embedded_json(value: Any) -> Markup:
    """JSON that no text in it can end: no ``<`` is left that HTML could read as a tag."""
    return Markup(json.dumps(_plain(value), allow_nan=False).replace("<", "\\u003c"))


def _plain(value: Any) -> Any:
    """The value with printable texts, one in place of infinities and NaN, which JSON lacks."""
    match value:
        case dict():
            return {printable(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case str():
            return "\n".join(map(printable, value.split("\n")))
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
