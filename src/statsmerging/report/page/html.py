"""The page as one text: template, styles and scripts are files beside this one, made part of it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from statsmerging.records.errors import printable
from statsmerging.report.groups import RunGroup
from statsmerging.report.page.content import Content, page_content

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

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


def report_page(groups: Sequence[RunGroup], folder: Path, figures: Mapping[str, Figure]) -> str:
    """The page of all finished runs below a folder; it loads nothing from anywhere.

    Args:
        groups: the runs.
        folder: from which their directories are named.
        figures: title → interactive figure.
    """
    return _page(
        page_content(groups, folder), figures, heading=printable(f"Report on {folder.as_posix()}")
    )


def _page(content: Content, figures: Mapping[str, Figure], heading: str) -> str:
    template = Template(_file("page.html"))
    return template.substitute(
        title=html.escape(f"{heading} · StatsMerging"),
        heading=html.escape(heading),
        styles="\n".join(_file(f"styles/{name}.css") for name in STYLES),
        content=_embedded_json(content),
        figures=_embedded_json(
            [{"title": title, **_figure(figure)} for title, figure in figures.items()]
        ),
        plotly=_plotly() if figures else "",
        scripts="\n".join(_script(_file(f"scripts/{name}.js")) for name in SCRIPTS),
    )


def _figure(figure: Figure) -> Content:
    """Data and layout, with numbers as plotly's own encoder writes them, texts without markup."""
    parts: Content = json.loads(figure.to_json())
    return {"data": _unmarked(parts["data"]), "layout": _unmarked(parts["layout"])}


def _unmarked(value: Any) -> Any:
    """The value with texts that plotly does not take for its kind of HTML."""
    match value:
        case dict():
            return {key: _unmarked(item) for key, item in value.items()}
        case list():
            return [_unmarked(item) for item in value]
        case str():
            return value.replace("&", "&amp;").replace("<", "&lt;")
        case _:
            return value


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return _script(get_plotlyjs())


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
