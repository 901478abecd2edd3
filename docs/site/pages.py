"""Hooks of mkdocs: pages that stand elsewhere in the repository, and links to its other files.

The Markdown of the site is that of the repository. A link such as ``../conf/learner`` leads to a
file there; on the site it leads to the page that shows this file, or to a copy of it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from posixpath import relpath

import configuration
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
#: Files of the repository that are pages of the site.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "data/README.md": "data.md",
}
#: ``](target#anchor)``, unless the target is an address or an anchor of the same page.
_LINK = re.compile(r"\]\((?!\w+:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's pages: those in docs/, those that stand elsewhere, and the generated ones."""
    for source, uri in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for uri, text in configuration.pages(ROOT / "conf").items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave docs/ lead to a page of the site, or to a copy of the file."""
    source = page.file.abs_src_path
    if source is None:  # generated: its links are those of the site
        return markdown

    def on_site(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(Path(source).parent / link["target"]))
        uri = _page_of(target, config, files)
        address = relpath(uri, Path(page.file.src_uri).parent.as_posix()) if uri else link["target"]
        return f"]({address}{link['anchor'] or ''})"

    return _LINK.sub(on_site, markdown)


def _page_of(target: Path, config: MkDocsConfig, files: Files) -> str | None:
    """Where the site has a file of the repository; ``None``, and an error, if it has none."""
    if target.is_relative_to(config.docs_dir):
        return target.relative_to(config.docs_dir).as_posix()
    name = target.relative_to(ROOT).as_posix()
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if target.parent == ROOT / "conf" and target.is_dir():
        return configuration.address(target.name)
    if not target.is_file() or target.suffix == ".md":
        return None
    copy = f"repository/{name}"
    if copy not in files.src_uris:
        files.append(File.generated(config, copy, abs_src_path=str(target)))
    return copy
