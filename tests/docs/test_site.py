"""The documentation site builds, every link leads somewhere, and it needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

for _package in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(_package, reason="needs mkdocs: pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a link or an anchor that leads nowhere ends the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "no_proxy": "",
        "https_proxy": "http://127.0.0.1:9",  # whatever asks the network fails
        "http_proxy": "http://127.0.0.1:9",
    }
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert pages
    assert all((site / page.with_suffix(".html")).is_file() for page in pages)


def test_reading_asks_no_other_host(site: Path) -> None:
    """Links may lead elsewhere; scripts, styles, fonts and pictures come with the page."""
    asked = re.compile(
        r"""<(?:script|img|iframe)[^>]+src=["']?(?:https?:)?//|<link[^>]+stylesheet[^>]+//"""
    )
    for page in site.rglob("*.html"):
        assert not asked.search(page.read_text()), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text()), style


def test_links_to_files_of_the_repository_lead_to_their_copies(site: Path) -> None:
    copy = site / "repository" / "src" / "statsmerging" / "runs" / "published.csv"
    assert copy.read_bytes() == (ROOT / "src/statsmerging/runs/published.csv").read_bytes()
    assert (
        'href="repository/src/statsmerging/runs/published.csv"'
        in (site / "results.html").read_text()
    )


def test_the_library_is_documented_from_its_docstrings(site: Path) -> None:
    """Every public name, and every method, has an entry with its arguments."""
    import statsmerging.merging
    from statsmerging.merging.methods import methods

    merging = (site / "reference/api/merging.html").read_text()
    assert [name for name in statsmerging.merging.__all__ if f'.{name}"' not in merging] == []
    api = (site / "reference/api/methods.html").read_text()
    ours = [kind for kind in methods().values() if kind.__module__.startswith("statsmerging.")]
    assert [
        kind.name for kind in ours if f'id="{kind.__module__}.{kind.__qualname__}"' not in api
    ] == []
