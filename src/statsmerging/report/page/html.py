"""The page as one text: template, styles and scripts are files beside this one, made part of it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import vl_convert

from statsmerging.errors import printable
from statsmerging.report.figures.style import Spec
from statsmerging.report.groups import RunGroup
from statsmerging.report.page.content import Content, page_content

#: In the order in which they stand in the page: later ones use earlier ones.
STYLES = ("page", "tables", "sections", "runs", "print")
SCRIPTS = (
    "elements",
    "sortable_table",
    "overview",
    "setting_tables",
    "compare",
    "runs",
    "figures",
    "theme",
    "start",
)


def report_page(groups: Sequence[RunGroup], folder: Path, figures: Mapping[str, Spec]) -> str:
    """The page of all finished runs below a folder; it loads nothing from anywhere.

    Args:
        groups: the runs.
        folder: from which their directories are named.
        figures: title → chart, of ``style.spec_of``.
    """
    return _page(
        page_content(groups, folder), figures, heading=printable(f"Report on {folder.as_posix()}")
    )


def _page(content: Content, figures: Mapping[str, Spec], heading: str) -> str:
    template = Template(_file("page.html"))
    return template.substitute(
        title=html.escape(f"{heading} · StatsMerging"),
        heading=html.escape(heading),
        styles="\n".join(_file(f"styles/{name}.css") for name in STYLES),
        content=_embedded_json(content),
        figures=_embedded_json([{"title": title, "spec": spec} for title, spec in figures.items()]),
        vega=_vega() if figures else "",
        scripts="\n".join(_script(_file(f"scripts/{name}.js")) for name in SCRIPTS),
    )


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, with no name of theirs among the page's."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return _script(f"(() => {{\n{bundle}\n}})();")


def _script(code: str) -> str:
    return f"<script>\n{code}\n</script>"


def _embedded_json(value: Any) -> str:
    """JSON that no text in it can end: no ``<`` is left that HTML could read as a tag."""
    return json.dumps(_plain(value), allow_nan=False).replace("<", "\\u003c")


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
